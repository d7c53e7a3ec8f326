// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package report

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/sealane/sealane/daemonset/network"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/text"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/backend"
)

// TestBackendReachesReaders follows the backend's name from the state of a device
// through the JSON report to the table that an operator reads.
func TestBackendReachesReaders(t *testing.T) {
	for b, want := range map[backend.Type][2]string{
		backend.UserSpace: {`"backend":"user-space"`, "wireguard (user-space)"},
		backend.Kernel:    {`"backend":"kernel"`, "wireguard (kernel)"},
	} {
		f := &fixture{view: &network.View{}, states: []overlay.TunnelState{
			{Device: "sealane-wg00", Kind: overlay.WireGuard, Backend: b, Port: 51871},
		}}
		r := f.reporter()
		r.Encapsulation = overlay.WireGuard
		raw, err := json.Marshal(r.Node())
		if err != nil {
			t.Fatal(err)
		}
		if !strings.Contains(string(raw), want[0]) {
			t.Errorf("the report lacks %s:\n%s", want[0], raw)
		}
		var read status.Node
		if err := json.Unmarshal(raw, &read); err != nil {
			t.Fatal(err)
		}
		report := status.NewReport(status.Cluster{Nodes: []status.Node{read}})
		for name, shown := range map[string]string{"table": text.Renderer{}.Cluster(report), "page": text.Renderer{}.Node(report)} {
			if !strings.Contains(shown, want[1]) {
				t.Errorf("the %s lacks %q:\n%s", name, want[1], shown)
			}
		}
	}
}
