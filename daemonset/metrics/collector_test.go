// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package metrics

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/daemonset/status"
)

const update = "UPDATE_GOLDEN"

// sampleReport is the report in which every field is set, which package status
// keeps so.
func sampleReport(t *testing.T) status.Node {
	t.Helper()
	raw, err := os.ReadFile("../status/testdata/node.json")
	if err != nil {
		t.Fatal(err)
	}
	var n status.Node
	if err := json.Unmarshal(raw, &n); err != nil {
		t.Fatal(err)
	}
	return n
}

func collector(n status.Node) *Collector { return New(func() status.Node { return n }) }

// compare compares a file with what it should hold, or writes it if the
// environment says so.
func compare(t *testing.T, path, got string) {
	t.Helper()
	if os.Getenv(update) != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; %s=1 accepts it):\n%s", path, update, diff)
	}
}

func TestScrapeIsAsRecorded(t *testing.T) {
	registry := prometheus.NewPedanticRegistry() // it compares what is collected with what is described
	if err := registry.Register(collector(sampleReport(t))); err != nil {
		t.Fatal(err)
	}
	page := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(page, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	compare(t, "testdata/scrape.txt", page.Body.String())
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	if len(families) != len(all()) {
		t.Errorf("%d metrics have a sample in a report with every field set, want all %d", len(families), len(all()))
	}
}

func TestNamesPassTheLinter(t *testing.T) {
	problems, err := testutil.CollectAndLint(collector(sampleReport(t)))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		t.Errorf("%s: %s", p.Metric, p.Text)
	}
}

// TestAwkwardReports must not cost the scrape.
func TestAwkwardReports(t *testing.T) {
	n := sampleReport(t)
	n.Peers = append(n.Peers, n.Peers[0], status.Peer{Name: "\xff\xfe"})
	n.Refused = append(n.Refused, status.Refusal{Node: "n9", Reason: n.Refused[0].Reason, Count: 4})
	n.Addresses[0].Used = n.Addresses[0].Size + 5 // leases left over from a larger range
	n.Peers[0].LastHandshake = n.Time.Add(1)
	for name, n := range map[string]status.Node{"empty": {}, "doubled": n} {
		t.Run(name, func(t *testing.T) {
			registry := prometheus.NewPedanticRegistry()
			if err := registry.Register(collector(n)); err != nil {
				t.Fatal(err)
			}
			if _, err := registry.Gather(); err != nil {
				t.Error(err)
			}
		})
	}
	const want = `
		# HELP sealane_statements_refused_total Key statements of other nodes that this node refused, by reason.
		# TYPE sealane_statements_refused_total counter
		sealane_statements_refused_total{reason="signature"} 7
	`
	if err := testutil.CollectAndCompare(collector(n), strings.NewReader(want), "sealane_statements_refused_total"); err != nil {
		t.Error(err)
	}
	const free = `
		# HELP sealane_ipam_addresses Pod addresses of the node, by family and state (used or free).
		# TYPE sealane_ipam_addresses gauge
		sealane_ipam_addresses{family="ipv4",state="free"} 0
		sealane_ipam_addresses{family="ipv4",state="used"} 258
		sealane_ipam_addresses{family="ipv6",state="free"} 9.223372036854775796e+18
		sealane_ipam_addresses{family="ipv6",state="used"} 11
	`
	if err := testutil.CollectAndCompare(collector(n), strings.NewReader(free), "sealane_ipam_addresses"); err != nil {
		t.Error(err)
	}
}

// TestDocumentListsEveryMetric keeps docs/metrics.md in step with Describe.
func TestDocumentListsEveryMetric(t *testing.T) {
	const path, begin, end = "../../docs/metrics.md", "<!-- table: begin -->\n", "<!-- table: end -->\n"
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(text), begin)
	_, after, ok2 := strings.Cut(rest, end)
	if !ok || !ok2 {
		t.Fatalf("%s does not have the lines %q and %q", path, begin, end)
	}
	compare(t, path, before+begin+Markdown()+end+after)

	described := make(chan *prometheus.Desc, 100)
	collector(status.Node{}).Describe(described)
	close(described)
	rows := strings.Count(Markdown(), "\n") - 2
	if rows != len(described) {
		t.Errorf("the table has %d rows, Describe gives %d metrics", rows, len(described))
	}
	for d := range described {
		name := strings.Split(d.String(), `"`)[1]
		if !strings.Contains(Markdown(), "| `"+name+"` |") {
			t.Errorf("the table lacks %s", name)
		}
	}
}
