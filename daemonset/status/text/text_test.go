// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"encoding/json"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"unicode"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/overlay/backend"
)

// golden compares with testdata, or writes there if UPDATE_GOLDEN is set.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if os.Getenv("UPDATE_GOLDEN") != "" {
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), got); diff != "" {
		t.Errorf("%s (-want +got; UPDATE_GOLDEN=1 accepts it):\n%s", path, diff)
	}
}

func TestTextIsAsRecorded(t *testing.T) {
	one := cluster(3)
	one.Nodes = one.Nodes[:1]
	for name, text := range map[string]string{
		"healthy.txt":   Text{}.Cluster(NewReport(cluster(3))),
		"single.txt":    Text{}.Cluster(NewReport(cluster(1))),
		"plaintext.txt": Text{Color: true}.Cluster(NewReport(plaintext(2))),
		"troubled.txt":  Text{}.Cluster(NewReport(troubled())),
		"color.txt":     Text{Color: true}.Cluster(NewReport(troubled())),
		"silent.txt":    Text{}.Cluster(NewReport(Cluster{Silent: []Silent{{"n1", "no agent pod"}}})),
		"node.txt":      Text{}.Node(NewReport(one)),
		"detail.txt":    Text{}.Node(NewReport(Cluster{Nodes: []Node{full()}})),
	} {
		t.Run(name, func(t *testing.T) { golden(t, name, text) })
	}
}

// TestReportOnTheWire keeps the names of the JSON fields, and a daemon's report
// the same after a journey.
func TestReportOnTheWire(t *testing.T) {
	want := full()
	zeros(t, "Node", reflect.ValueOf(want))
	raw, err := json.MarshalIndent(want, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "node.json", string(raw)+"\n")
	var got Node
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Addr{}, netip.Prefix{})); diff != "" {
		t.Errorf("after a journey as JSON (-want +got):\n%s", diff)
	}
}

// zeros makes sure that the sample of the wire format shows every field.
func zeros(t *testing.T, path string, v reflect.Value) {
	t.Helper()
	if v.IsZero() {
		t.Errorf("%s is zero in the sample; give it a value", path)
		return
	}
	switch {
	case v.Kind() == reflect.Slice:
		zeros(t, path+"[0]", v.Index(0))
	case v.Kind() == reflect.Pointer:
		zeros(t, path, v.Elem())
	case v.Kind() == reflect.Struct && v.Type().PkgPath() == reflect.TypeFor[Node]().PkgPath():
		for i := range v.NumField() {
			zeros(t, path+"."+v.Type().Field(i).Name, v.Field(i))
		}
	}
}

func TestTextShowsNoControlSequencesOfOthers(t *testing.T) {
	evil := "\x1b]0;owned\a\n\u202e" + strings.Repeat("x", 1000)
	n := full()
	n.Name, n.UID, n.Version, n.Lane.Kind, n.Lane.Backend = evil, evil, evil, evil, backend.Type(evil)
	n.NotReadyReasons, n.Uplinks, n.Clear, n.Ready = []string{evil}, []string{evil}, []string{evil}, false
	n.Certificate.Serial, n.Certificate.Issuer, n.Key.PublicKey, n.BundleHash = evil, evil, evil, evil
	n.Peers[0] = Peer{Name: evil, State: PeerState(evil), Reason: evil, PublicKey: evil, Endpoint: evil, Certificate: n.Certificate}
	n.Refused[0].Node, n.Refused[0].Reason, n.Refused[0].Message = evil, evil, evil
	n.Drops[0].Reason, n.Paths[0].Path, n.LastLeak.Device = "leak_"+evil, evil, evil
	r := NewReport(Cluster{Nodes: []Node{n}, Silent: []Silent{{evil, evil}}})
	for _, text := range []string{Text{}.Cluster(r), Text{}.Node(r)} {
		for line := range strings.Lines(text) {
			if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(c rune) bool { return !unicode.IsPrint(c) }); i >= 0 {
				t.Errorf("character %q reaches the terminal in %q", line[i], line)
			}
		}
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	text := Text{}.Cluster(NewReport(Cluster{Nodes: cluster(1).Nodes, Silent: make([]Silent, 30)}))
	if got := strings.Count(text, "✗"); got != shownLines || !strings.Contains(text, "… and 11 more") {
		t.Errorf("%d problems are shown, want %d and the number of the rest:\n%s", got, shownLines, text)
	}
}
