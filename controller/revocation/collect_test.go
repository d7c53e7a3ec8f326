// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
)

func TestCollect(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.AddNode("n2", "u2-new", "10.244.2.0/24")
	w.Claims = map[string]string{"n1": "u1", "n2": "u2-old", "n3": "u3"}
	l := newLeader(t, w)
	l.revoker.State.Publish(keymgr.RevocationList{}, map[string]bool{"u1": true, "u2-old": true, "u3": true})
	w.Settle(l.work)
	if diff := cmp.Diff(map[string]string{"n1": "u1"}, w.Claims); diff != "" {
		t.Errorf("nodekeys (-want +got):\n%s", diff)
	}
	if got := testutil.ToFloat64(l.collector.Metrics.collected); got != 2 {
		t.Errorf("counted %v", got)
	}
}

func TestCollectBelievesTheAPIServerNotTheSnapshot(t *testing.T) {
	w := controllertest.NewWorld(t)
	w.AddNode("n1", "u1", "10.244.1.0/24")
	w.Claims = map[string]string{"n1": "u1"}
	c := newLeader(t, w).collector
	c.State.Publish(keymgr.RevocationList{}, map[string]bool{"u1": true})
	late := cluster.Snapshot{Claims: map[string]string{"n1": "u1"}} // without the node
	if err := c.Collect(t.Context(), late); err != nil {
		t.Fatal(err)
	}
	if len(w.Claims) != 1 {
		t.Error("a live node's nodekey was removed")
	}
	w.Set(controllertest.ErrAway, false)
	if err := c.Collect(t.Context(), late); !errors.Is(err, controllertest.ErrAway) {
		t.Errorf("got error %v", err)
	}
}
