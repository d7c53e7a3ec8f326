// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package text

import (
	"strings"
	"testing"
	"unicode"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/statustest"
	"github.com/sealane/sealane/overlay/backend"
)

func TestTextIsAsRecorded(t *testing.T) {
	one := statustest.Cluster(3)
	one.Nodes = one.Nodes[:1]
	for name, text := range map[string]string{
		"healthy.txt":   Renderer{}.Cluster(status.NewReport(statustest.Cluster(3))),
		"single.txt":    Renderer{}.Cluster(status.NewReport(statustest.Cluster(1))),
		"plaintext.txt": Renderer{Color: true}.Cluster(status.NewReport(statustest.Plaintext(2))),
		"troubled.txt":  Renderer{}.Cluster(status.NewReport(statustest.Troubled())),
		"color.txt":     Renderer{Color: true}.Cluster(status.NewReport(statustest.Troubled())),
		"silent.txt":    Renderer{}.Cluster(status.NewReport(status.Cluster{Silent: []status.Silent{{Name: "n1", Problem: "no agent pod"}}})),
		"node.txt":      Renderer{}.Node(status.NewReport(one)),
		"detail.txt":    Renderer{}.Node(status.NewReport(status.Cluster{Nodes: []status.Node{statustest.Full()}})),
	} {
		t.Run(name, func(t *testing.T) { statustest.Golden(t, name, text) })
	}
}

func TestTextShowsNoControlSequencesOfOthers(t *testing.T) {
	evil := "\x1b]0;owned\a\n\u202e" + strings.Repeat("x", 1000)
	n := statustest.Full()
	n.Name, n.UID, n.Version, n.Encapsulation.Kind, n.Encapsulation.Backend = evil, evil, evil, evil, backend.Type(evil)
	n.NotReadyReasons, n.Uplinks, n.Clear, n.Ready = []string{evil}, []string{evil}, []string{evil}, false
	n.Certificate.Serial, n.Certificate.Issuer, n.Key.PublicKey, n.BundleHash = evil, evil, evil, evil
	n.Peers[0] = status.Peer{Name: evil, State: status.PeerState(evil), Reason: evil, PublicKey: evil, Endpoint: evil, Certificate: n.Certificate}
	n.Refused[0].Node, n.Refused[0].Reason, n.Refused[0].Message = evil, evil, evil
	n.Drops[0].Reason, n.Paths[0].Path, n.LastLeak.Device = "leak_"+evil, evil, evil
	r := status.NewReport(status.Cluster{Nodes: []status.Node{n}, Silent: []status.Silent{{Name: evil, Problem: evil}}})
	for _, text := range []string{Renderer{}.Cluster(r), Renderer{}.Node(r)} {
		for line := range strings.Lines(text) {
			if i := strings.IndexFunc(strings.TrimSuffix(line, "\n"), func(c rune) bool { return !unicode.IsPrint(c) }); i >= 0 {
				t.Errorf("character %q reaches the terminal in %q", line[i], line)
			}
		}
	}
}

func TestManyProblemsAreCut(t *testing.T) {
	text := Renderer{}.Cluster(status.NewReport(status.Cluster{Nodes: statustest.Cluster(1).Nodes, Silent: make([]status.Silent, 30)}))
	if got := strings.Count(text, "✗"); got != shownLines || !strings.Contains(text, "… and 11 more") {
		t.Errorf("%d problems are shown, want %d and the number of the rest:\n%s", got, shownLines, text)
	}
}
