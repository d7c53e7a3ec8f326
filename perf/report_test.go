// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"flag"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "rewrite testdata")

func TestReport(t *testing.T) {
	r := newResults(3)
	for round := range 3 {
		slow := float64(round + 1)
		for _, s := range sections() {
			for i, row := range s.rows {
				for j, subject := range s.subjects {
					r.set(round, subject, map[string]float64{row.id: float64(i+1) * float64(j+1) * 10 / slow})
				}
			}
		}
	}
	r.of("cross/tcp1", bareWG)[1] = math.NaN()
	for round := range 3 {
		r.of("cross/udp64", flannel)[round] = math.NaN()
		r.of("same/rr50", flannel)[round] = 100 / (1 + float64(round))
	}
	var got strings.Builder
	if err := r.write(&got); err != nil {
		t.Fatal(err)
	}
	golden(t, "report.md", got.String())
	if diff := cmp.Diff([]string{"cross/udp64 of flannel VXLAN"}, r.missing()); diff != "" {
		t.Errorf("missing: %s", diff)
	}
	r.withoutFlannel = true
	if got := r.missing(); len(got) > 0 {
		t.Errorf("without flannel, %q are missing", got)
	}
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	file := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; -update rewrites it):\n%s", file, diff)
	}
}

// TestCellsHaveRows: what a step measures must have a place in the report, and
// every row a step that fills it.
func TestCellsHaveRows(t *testing.T) {
	var rows []string
	for _, s := range sections() {
		for _, row := range s.rows {
			rows = append(rows, row.id)
		}
	}
	cells := map[string]bool{}
	for _, id := range []string{"cni/one", "cni/all"} {
		for cell := range (cniTimes{}).cells(id) {
			cells[cell] = true
		}
	}
	for _, path := range []string{"same", "cross"} {
		for _, cell := range []string{"tcp1", "tcp8", "cpu", "udp64", "udp1400", "rr50", "rr99", "crr50", "crr99"} {
			cells[path+"/"+cell] = true
		}
	}
	want := map[string]bool{}
	for _, row := range rows {
		want[row] = true
	}
	if diff := cmp.Diff(want, cells); diff != "" {
		t.Errorf("rows and cells differ (-rows +cells):\n%s", diff)
	}
}

func TestNumber(t *testing.T) {
	for v, want := range map[float64]string{0: "0.000", 0.1234: "0.123", 1.234: "1.23", 12.34: "12.3", 123.4: "123", 45678: "45678"} {
		if got := number(v); got != want {
			t.Errorf("number(%g) = %s, want %s", v, got, want)
		}
	}
	if got := number(math.NaN()); got != "–" {
		t.Errorf("number(NaN) = %s", got)
	}
}
