// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"slices"
	"testing"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/rotation"
)

// TestForwardKindsAgree: plan and data path write the same numbers.
func TestForwardKindsAgree(t *testing.T) {
	for o, b := range map[overlay.ForwardKind]bpf.ForwardKind{
		overlay.PodRemote: bpf.PodRemote, overlay.NodeRemote: bpf.NodeRemote, overlay.NodeLocal: bpf.NodeLocal,
		overlay.PodLocal: bpf.PodLocal, overlay.Cluster: bpf.Cluster,
	} {
		if uint8(o) != uint8(b) {
			t.Errorf("%v is %d in the plan and %d in the data path", o, o, b)
		}
	}
}

// trusting writes down what it is told.
type trusting []string

func (r *trusting) Learn(kube.Node, kube.Snapshot) error {
	*r = append(*r, "learn")
	return nil
}

func (r *trusting) Follow(kube.Node, kube.Snapshot) error {
	*r = append(*r, "follow")
	return nil
}

func (r *trusting) SetKeys([]uint64, []uint64) { *r = append(*r, "keys") }

// TestNothingIsSignedByASnapshotFromDisk: what an operator asked for last may not be
// in it.
func TestNothingIsSignedByASnapshotFromDisk(t *testing.T) {
	for fromDisk, want := range map[bool][]string{true: {"learn"}, false: {"follow", "keys"}} {
		var told trusting
		v := &View{FromDisk: fromDisk}
		if err := learn(&told, kube.Snapshot{}, v); err != nil {
			t.Fatal(err)
		}
		list(&told, rotation.Decision{}, v)
		if !slices.Equal(told, want) {
			t.Errorf("from disk %t: %v, want %v", fromDisk, told, want)
		}
	}
}
