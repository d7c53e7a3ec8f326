// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// The subjects: what is measured side by side.
const (
	wireguard = "Sealane WireGuard"
	vxlan     = "Sealane VXLAN"
	flannel   = "flannel VXLAN"
	redirect  = "bare redirect_peer"
	bareWG    = "bare wireguard-go"
)

// row is one number that is measured.
type row struct {
	id, title, unit string
	less            bool // is better
}

// comparison is a column of ratios.
type comparison struct{ a, b string }

// section is one table of the report.
type section struct {
	title       string
	subjects    []string
	comparisons []comparison
	rows        []row
}

// sections are the tables in the order of the report.
func sections() []section {
	clusters := []string{wireguard, vxlan, flannel}
	return []section{
		{
			title: "CNI", subjects: clusters,
			comparisons: []comparison{{wireguard, flannel}, {vxlan, flannel}},
			rows: []row{
				{"cni/one/add50", "ADD one by one, p50", "ms", true},
				{"cni/one/add99", "ADD one by one, p99", "ms", true},
				{"cni/one/del50", "DEL one by one, p50", "ms", true},
				{"cni/one/del99", "DEL one by one, p99", "ms", true},
				{"cni/all/add50", "ADD at once, p50", "ms", true},
				{"cni/all/add99", "ADD at once, p99", "ms", true},
				{"cni/all/del50", "DEL at once, p50", "ms", true},
				{"cni/all/del99", "DEL at once, p99", "ms", true},
			},
		},
		{
			title: "Same node", subjects: append(clusters[:3:3], redirect),
			comparisons: []comparison{{wireguard, flannel}, {vxlan, flannel}, {wireguard, redirect}},
			rows:        trafficRows("same"),
		},
		{
			title: "Between nodes", subjects: append(clusters[:3:3], bareWG),
			comparisons: []comparison{{vxlan, flannel}, {wireguard, bareWG}, {wireguard, flannel}},
			rows:        trafficRows("cross"),
		},
	}
}

func trafficRows(path string) []row {
	return []row{
		{path + "/tcp1", "TCP, 1 stream", "Gbit/s", false},
		{path + "/tcp8", "TCP, 8 streams", "Gbit/s", false},
		{path + "/cpu", "CPU per GB, 1 stream", "s", true},
		{path + "/udp64", "UDP, 64 bytes", "kpackets/s", false},
		{path + "/udp1400", "UDP, 1,400 bytes", "kpackets/s", false},
		{path + "/rr50", "TCP request-response, p50", "µs", true},
		{path + "/rr99", "TCP request-response, p99", "µs", true},
		{path + "/crr50", "TCP connect-request-response, p50", "µs", true},
		{path + "/crr99", "TCP connect-request-response, p99", "µs", true},
	}
}

// results holds what was measured: by row, then by subject, one value per round.
type results struct {
	rounds         int
	values         map[string]map[string][]float64
	withoutFlannel bool // it was not asked for, so that its cells are not missing
}

func newResults(rounds int) *results {
	return &results{rounds: rounds, values: map[string]map[string][]float64{}}
}

// of returns the values of all rounds, NaN where nothing was measured.
func (r *results) of(id, subject string) []float64 {
	if r.values[id] == nil {
		r.values[id] = map[string][]float64{}
	}
	all, ok := r.values[id][subject]
	if !ok {
		all = make([]float64, r.rounds)
		for i := range all {
			all[i] = math.NaN()
		}
		r.values[id][subject] = all
	}
	return all
}

func (r *results) set(round int, subject string, measured map[string]float64) {
	for id, v := range measured {
		r.of(id, subject)[round] = v
	}
}

// missing lists the cells of the report that no round has filled.
func (r *results) missing() []string {
	var out []string
	for _, s := range sections() {
		for _, row := range s.rows {
			for _, subject := range s.subjects {
				if r.withoutFlannel && subject == flannel {
					continue
				}
				if spreadOf(r.of(row.id, subject)).Count == 0 {
					out = append(out, row.id+" of "+subject)
				}
			}
		}
	}
	return out
}

// write prints the tables as Markdown.
func (r *results) write(w io.Writer) error {
	var out strings.Builder
	for _, s := range sections() {
		r.writeSection(&out, s)
	}
	_, err := io.WriteString(w, out.String())
	return err
}

func (r *results) writeSection(out *strings.Builder, s section) {
	header, rule := []string{s.title}, []string{"---"}
	for _, subject := range s.subjects {
		header, rule = append(header, subject), append(rule, "--:")
	}
	for _, c := range s.comparisons {
		header, rule = append(header, c.a+" / "+c.b), append(rule, "--:")
	}
	fmt.Fprintf(out, "## %s\n\n", s.title)
	writeRow(out, header)
	writeRow(out, rule)
	for _, row := range s.rows {
		better := "↑"
		if row.less {
			better = "↓"
		}
		cells := []string{fmt.Sprintf("%s (%s) %s", row.title, row.unit, better)}
		for _, subject := range s.subjects {
			cells = append(cells, number(spreadOf(r.of(row.id, subject)).Median))
		}
		for _, c := range s.comparisons {
			cells = append(cells, ratioText(spreadOf(ratios(r.of(row.id, c.a), r.of(row.id, c.b)))))
		}
		writeRow(out, cells)
	}
	out.WriteString("\n")
}

func writeRow(out *strings.Builder, cells []string) {
	fmt.Fprintf(out, "| %s |\n", strings.Join(cells, " | "))
}

// number prints three digits that count; more would be noise.
func number(v float64) string {
	switch {
	case math.IsNaN(v):
		return "–"
	case math.Abs(v) >= 100:
		return fmt.Sprintf("%.0f", v)
	case math.Abs(v) >= 10:
		return fmt.Sprintf("%.1f", v)
	case math.Abs(v) >= 1:
		return fmt.Sprintf("%.2f", v)
	}
	return fmt.Sprintf("%.3f", v)
}

// ratioText prints a ratio with the least and the greatest one of all rounds.
func ratioText(s spread) string {
	switch s.Count {
	case 0:
		return "–"
	case 1:
		return fmt.Sprintf("%.2f", s.Median)
	}
	return fmt.Sprintf("%.2f (%.2f…%.2f)", s.Median, s.Min, s.Max)
}
