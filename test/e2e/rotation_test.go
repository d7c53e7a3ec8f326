// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/status"
)

// statusOf reads an agent's report on the node itself: the API server may be away.
func statusOf(t testing.TB, node string) (s status.Node, err error) {
	t.Helper()
	out, err := lab(t.Context(), "", "sh", node, "curl", "-sS", "-m", "5", "http://127.0.0.1:9754"+status.Path)
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(out), &s)
}

// request asks nodes for new keys with the command that an operator has.
func request(t testing.TB, args ...string) {
	t.Helper()
	if out, err := sealane(t, append([]string{"rotate"}, args...)...); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

// sealane runs the command line tool where the API server is reached.
func sealane(t testing.TB, args ...string) (string, error) {
	t.Helper()
	config, err := lab(t.Context(), "", "kubeconfig")
	if err != nil {
		return "", err
	}
	return outside(t, append([]string{tool(t), "--kubeconfig", strings.TrimSpace(config)}, args...)...)
}

// tool builds the command line tool, once for all tests.
func tool(t testing.TB) string {
	t.Helper()
	path, err := buildTool()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

var buildTool = sync.OnceValues(func() (string, error) {
	path := filepath.Join(root(), "dist", "e2e-sealane")
	build := exec.Command("go", "build", "-o", path, "./cmd/sealane")
	build.Dir = root()
	if out, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build sealane: %w\n%s", err, out)
	}
	return path, nil
})

// settled waits until no node rotates and every lane is the only one of its pair.
func settled(t testing.TB) {
	t.Helper()
	eventually(t, 5*time.Minute, "no rotation under way", func() error {
		for _, n := range nodes(t) {
			s, err := statusOf(t, n)
			if err != nil {
				return err
			}
			if s.Rotation.State != "steady" {
				return fmt.Errorf("%s: %+v", n, s.Rotation)
			}
			for _, p := range s.Peers {
				if p.State != status.Connected || p.GenerationPairs != 1 || !p.Preshared {
					return fmt.Errorf("%s: %+v", n, p)
				}
			}
		}
		return nil
	})
}

func generation(t testing.TB, node string) uint64 {
	t.Helper()
	s, err := statusOf(t, node)
	if err != nil {
		t.Fatal(err)
	}
	return s.Key.Generation
}

// TestRotation rotates keys in every way there is, under load between all pairs.
func TestRotation(t *testing.T) {
	settled(t)
	m := newMesh(t, "e2e-rotation")
	all := m.nodes
	t.Run("NothingHappens", func(t *testing.T) { // what this machine loses by itself
		m.under(t, 20, "both", func() {})
	})
	t.Run("OneAfterTheOther", func(t *testing.T) {
		n, before := setting("SEALANE_E2E_ROTATIONS", 6), generation(t, all[0])
		m.under(t, 10+12*n, "both", func() {
			for i := range n {
				request(t, all[i%len(all)])
			}
		})
		if after := generation(t, all[0]); after < before+uint64(n/len(all)) {
			t.Errorf("generation %d after %d", after, before)
		}
	})
	t.Run("AllAtOnce", func(t *testing.T) {
		m.under(t, 40, "both", func() {
			request(t, "--all")
			request(t, "--all")
		})
	})
	t.Run("BothEndsOfAPair", func(t *testing.T) {
		m.under(t, 25, "both", func() { request(t, all[0], all[1]) })
	})
	for _, direction := range []string{"out", "in"} {
		t.Run("OneWayOnly/"+direction, func(t *testing.T) {
			m.under(t, 25, direction, func() { request(t, "--all") })
		})
	}
	t.Run("PeerIsLate", func(t *testing.T) {
		m.under(t, 40, "both", func() {
			onNode(t, all[1], agentPID+" | xargs -r kill -STOP")
			request(t, all[0], "--no-wait")
			time.Sleep(3 * time.Second) // the peer's lateness is what is tested
			onNode(t, all[1], agentPID+" | xargs -r kill -CONT")
			request(t, all[0], all[1])
		})
	})
	for _, state := range []string{"keyed", "published", "retiring"} {
		t.Run("DaemonKilled/"+state, func(t *testing.T) {
			m.under(t, 60, "both", func() {
				killed := make(chan struct{})
				go func() { defer close(killed); killIn(t, all[0], state) }()
				time.Sleep(2 * time.Second) // until it looks: a state may last tens of milliseconds
				request(t, all[0], "--no-wait")
				<-killed
				waitForAgents(t)
				settled(t)
			})
		})
	}
	t.Run("ControllerDown", func(t *testing.T) {
		replicas := kubectl(t, "-n", "sealane-system", "get", "deployment", "sealane-controller", "-o", "jsonpath={.spec.replicas}")
		kubectl(t, "-n", "sealane-system", "scale", "deployment/sealane-controller", "--replicas=0")
		defer kubectl(t, "-n", "sealane-system", "scale", "deployment/sealane-controller", "--replicas="+replicas)
		m.under(t, 30, "both", func() { request(t, "--all") })
	})
	t.Run("APIServerDown", func(t *testing.T) {
		m.under(t, 60, "both", func() {
			request(t, "--all", "--no-wait")
			pid := strings.TrimSpace(onNode(t, all[0], "pgrep -f '^[^ ]*kube-apiserver ' | head -n 1"))
			onNode(t, all[0], "kill -STOP "+pid)
			time.Sleep(20 * time.Second) // the time without an API server is what is tested
			onNode(t, all[0], "kill -CONT "+pid)
			settled(t)
		})
	})
	settled(t)
}

// killIn kills the daemon on a node when its rotation is in a state.
func killIn(t testing.TB, node, state string) {
	t.Helper()
	script := fmt.Sprintf(`end=$((SECONDS+60))
while [ $SECONDS -lt $end ]; do
  if curl -s -m 1 http://127.0.0.1:9754/status | grep -q '"rotation":{"state":"%s"'; then %s | xargs -r kill -9; echo killed; exit; fi
done`, state, agentPID)
	if out := onNode(t, node, script); strings.TrimSpace(out) != "killed" {
		t.Errorf("the state %q was not seen", state)
	}
}
