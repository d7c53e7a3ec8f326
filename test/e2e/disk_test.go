// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/status"
)

// agreed counts the exchanges of preshared keys since the daemon started.
func agreed(s status.Node) (n uint64) {
	for _, p := range s.Pairings {
		if p.Result == "agreed" {
			n += p.Count
		}
	}
	return n
}

// TestDaemonStartsWithoutAPIServer kills a daemon in an outage: the next one serves
// its lanes from what is on disk, agrees on preshared keys with the others, and
// follows the API server when that is back. Existing pods lose nothing.
func TestDaemonStartsWithoutAPIServer(t *testing.T) {
	settled(t)
	m := newMesh(t, "e2e-disk")
	node := m.nodes[len(m.nodes)-1]
	// A new pod, so that kubelet is not backed off from starting it again.
	kubectl(t, "-n", "sealane-system", "delete", "pod", "-l", "app.kubernetes.io/component=agent", "--field-selector", "spec.nodeName="+node)
	waitForAgents(t)
	settled(t)
	m.under(t, 55, "both", func() {
		pid := strings.TrimSpace(onNode(t, m.nodes[0], "pgrep -f '^[^ ]*kube-apiserver ' | head -n 1"))
		onNode(t, m.nodes[0], "kill -STOP "+pid)
		defer onNode(t, m.nodes[0], "kill -CONT "+pid)
		onNode(t, node, agentPID+" | xargs -r kill -9")
		began := time.Now()
		eventually(t, time.Minute, "the daemon serves from disk", func() error {
			return servesFromDisk(t, node, len(m.nodes)-1)
		})
		t.Logf("%s after it was killed, the daemon serves from disk", time.Since(began).Round(100*time.Millisecond))
		// They are due after 10 s, or 15 where the peer should begin, and a daemon to which
		// nothing happens looks every 30 s; three times as long is for a busy machine.
		eventually(t, 3*time.Minute, "a preshared key is agreed on with each peer", func() error {
			s, err := statusOf(t, node)
			if n := agreed(s); err == nil && n < uint64(len(m.nodes)-1) {
				err = fmt.Errorf("%d exchanges: %+v", n, s.Pairings)
			}
			return err
		})
		t.Logf("%s after it was killed, each peer has another preshared key", time.Since(began).Round(100*time.Millisecond))
		if out := onNode(t, node, "curl -sS -m 5 http://127.0.0.1:9754/metrics | grep '^sealane_cluster_from_disk'"); strings.TrimSpace(out) != "sealane_cluster_from_disk 1" {
			t.Errorf("metric: %s", out)
		}
	})
	began := time.Now()
	eventually(t, 2*time.Minute, "the daemon follows the API server", func() error {
		s, err := statusOf(t, node)
		if err == nil && (s.FromDisk || !s.Ready) {
			err = fmt.Errorf("from disk: %t, %v", s.FromDisk, s.NotReadyReasons)
		}
		return err
	})
	t.Logf("%s after the measurement, it follows the API server", time.Since(began).Round(100*time.Millisecond))
	waitForAgents(t)
	settled(t)
}

func servesFromDisk(t testing.TB, node string, peers int) error {
	t.Helper()
	s, err := statusOf(t, node)
	switch {
	case err != nil:
		return err
	case !s.FromDisk || s.Ready:
		return fmt.Errorf("from disk: %t, ready: %t: %v", s.FromDisk, s.Ready, s.NotReadyReasons)
	case len(s.Peers) != peers:
		return fmt.Errorf("peers %+v", s.Peers)
	}
	for _, p := range s.Peers {
		if p.State != status.Connected || !p.Preshared {
			return fmt.Errorf("peer %+v", p)
		}
	}
	return nil
}
