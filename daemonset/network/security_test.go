// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"slices"
	"testing"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr/rotation"
)

// trusting writes down what it is told.
type trusting []string

func (r *trusting) Learn(kube.Node, cluster.Snapshot) error {
	*r = append(*r, "learn")
	return nil
}

func (r *trusting) Follow(kube.Node, cluster.Snapshot) error {
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
		if err := learn(&told, cluster.Snapshot{}, v, true); err != nil {
			t.Fatal(err)
		}
		list(&told, rotation.Decision{}, v)
		if !slices.Equal(told, want) {
			t.Errorf("from disk %t: %v, want %v", fromDisk, told, want)
		}
	}
	var told trusting
	if err := learn(&told, cluster.Snapshot{}, &View{}, false); err != nil || !slices.Equal(told, trusting{"learn"}) {
		t.Errorf("this node is not in the snapshot: %v, %v", told, err)
	}
}
