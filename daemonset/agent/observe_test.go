// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/observe"
	"github.com/sealane/sealane/overlay"
)

func TestLaneTo(t *testing.T) {
	n := &network{cfg: Config{Lane: overlay.VXLAN}}
	if l := n.laneTo("n2"); l != nil {
		t.Errorf("before the first pass: %+v", l)
	}
	n.seen.Store(&view{peers: []judged{{node: kube.Node{Name: "n2", UID: "u2"}}}})
	if diff := cmp.Diff(&observe.Lane{Peer: "n2", Kind: "vxlan"}, n.laneTo("n2")); diff != "" {
		t.Error(diff)
	}
	if l := n.laneTo("n3"); l != nil {
		t.Errorf("to a stranger: %+v", l)
	}
	n.cfg.Lane = overlay.WireGuard
	if l := n.laneTo("n2"); l == nil || !l.Encrypted || l.OwnGeneration != 0 || l.String() != "wireguard, no lane" {
		t.Errorf("without a rotator: %+v", l)
	}
}
