// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policycmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cmd/sealane/internal/agents"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/observe"
)

// fakeNodes is a cluster whose agents answer commands.
type fakeNodes struct {
	nodes  []string
	agents []kube.Pod
	exec   func(ctx context.Context, cmd kube.Command) error
}

func (f *fakeNodes) Nodes(context.Context) ([]kube.Node, error) {
	var out []kube.Node
	for _, n := range f.nodes {
		out = append(out, kube.Node{Name: n})
	}
	return out, nil
}

func (f *fakeNodes) AgentPods(context.Context) ([]kube.Pod, error) { return f.agents, nil }

func (f *fakeNodes) Exec(ctx context.Context, cmd kube.Command) error { return f.exec(ctx, cmd) }

func agentsOn(nodes ...string) []kube.Pod {
	var out []kube.Pod
	for _, n := range nodes {
		out = append(out, kube.Pod{Namespace: "sealane-system", Name: "agent-" + n, Node: n, Ready: true})
	}
	return out
}

// awaited is an output that tells when a text has come.
type awaited struct {
	mu   sync.Mutex
	text strings.Builder
	news chan struct{}
}

func newAwaited() *awaited { return &awaited{news: make(chan struct{}, 1)} }

func (a *awaited) Write(p []byte) (int, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.text.Write(p)
	select {
	case a.news <- struct{}{}:
	default:
	}
	return len(p), nil
}

func (a *awaited) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.text.String()
}

func (a *awaited) await(t *testing.T, text string) {
	t.Helper()
	late := time.After(10 * time.Second)
	for !strings.Contains(a.String(), text) {
		select {
		case <-a.news:
		case <-late:
			t.Fatalf("%q has not come:\n%s", text, a)
		}
	}
}

func encoded(t *testing.T, records ...observe.Record) string {
	t.Helper()
	var b bytes.Buffer
	for _, r := range records {
		if err := json.NewEncoder(&b).Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	return b.String()
}

// TestMonitorMerges: one node answers in pieces, one dies and comes back, one
// has no agent.
func TestMonitorMerges(t *testing.T) {
	denied := observe.Record{Node: "n1", Verdict: observe.Denied, Reason: "policy_ingress", Protocol: "TCP"}
	whole := encoded(t, observe.Record{Node: "n1", Begun: true}, denied)
	var mu sync.Mutex
	asked := map[string]int{}
	from := &fakeNodes{nodes: []string{"n1", "n2", "n3"}, agents: agentsOn("n1", "n2"), exec: func(ctx context.Context, cmd kube.Command) error {
		mu.Lock()
		asked[cmd.Pod]++
		times := asked[cmd.Pod]
		mu.Unlock()
		if diff := cmp.Diff([]string{agents.Program, "monitor", "--until-eof", "--verdict=denied"}, cmd.Args); diff != "" || cmd.Container != agents.Container {
			t.Errorf("runs %+v", cmd)
		}
		switch {
		case cmd.Pod == "agent-n1":
			for _, piece := range []string{whole[:10], whole[10:60], whole[60:]} {
				if _, err := io.WriteString(cmd.Stdout, piece); err != nil {
					t.Error(err)
				}
			}
		case times == 1:
			fmt.Fprintln(cmd.Stderr, "sealaned: no daemon answers")
			return &kube.ExitError{Message: "exit code 1"}
		default:
			_, _ = io.WriteString(cmd.Stdout, encoded(t, observe.Record{Node: "n2", Lost: 4}))
		}
		<-ctx.Done()
		return ctx.Err()
	}}
	ctx, cancel := context.WithCancel(t.Context())
	out, warnings, done := newAwaited(), newAwaited(), make(chan error)
	go func() {
		done <- monitor(ctx, from, screen{out: out, warnings: warnings}, monitorOptions{
			filter: observe.Filter{Verdict: observe.Denied}, output: "text", again: time.Millisecond,
		})
	}()
	out.await(t, "n1 DENIED")
	out.await(t, "n2 4 flows are not shown")
	warnings.await(t, "watching node n1\n")
	warnings.await(t, "node n2 cannot be watched, retrying: sealaned: no daemon answers\n")
	warnings.await(t, "node n3 cannot be watched, retrying: no agent pod on the node\n")
	cancel()
	if err := <-done; err != nil {
		t.Errorf("after Ctrl-C: error %v", err)
	}
	if n := strings.Count(warnings.String(), "node n3"); n != 1 {
		t.Errorf("the same is said of node n3 %d times", n)
	}
}

func TestMonitorEnds(t *testing.T) {
	full := errors.New("full")
	for name, tc := range map[string]struct {
		out  io.Writer
		exec error
		o    monitorOptions
		want error
	}{
		"forbidden":      {io.Discard, kube.ErrForbidden, monitorOptions{output: "json"}, kube.ErrForbidden},
		"output is full": {brokenWriter{full}, nil, monitorOptions{output: "json"}, full},
		"bad filter":     {io.Discard, nil, monitorOptions{output: "json", filter: observe.Filter{Pod: "x"}}, observe.ErrFilter},
	} {
		from := &fakeNodes{nodes: []string{"n1"}, agents: agentsOn("n1"), exec: func(_ context.Context, cmd kube.Command) error {
			if tc.exec != nil {
				return tc.exec
			}
			_, err := io.WriteString(cmd.Stdout, encoded(t, observe.Record{Node: "n1", Verdict: observe.Allowed}))
			return err
		}}
		if err := monitor(t.Context(), from, screen{out: tc.out, warnings: io.Discard}, tc.o); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v", name, err)
		}
	}
	from := &fakeNodes{nodes: []string{"n1"}}
	for want, o := range map[string]monitorOptions{"no such node": {output: "text", node: "n9"}, "want text or json": {output: "yaml"}} {
		if err := monitor(t.Context(), from, screen{}, o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q", err, want)
		}
	}
}

type brokenWriter struct{ err error }

func (w brokenWriter) Write([]byte) (int, error) { return 0, w.err }
