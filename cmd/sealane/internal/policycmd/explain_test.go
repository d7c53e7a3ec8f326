// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policycmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/daemonset/observe"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
)

// fakeShop has pods web and db on n1 and n2, of which db is isolated; its nodes'
// agents answer from tables that were compiled.
type fakeShop struct {
	fakeNodes
	tables policy.Tables // of all nodes
}

func newShop(t *testing.T) *fakeShop {
	t.Helper()
	s := &fakeShop{fakeNodes: fakeNodes{nodes: []string{"n1", "n2"}, agents: agentsOn("n1", "n2")}}
	s.exec = s.answer
	c := compile.NewCompiler()
	c.SetNamespace("shop", nil)
	for _, name := range []string{"web", "db"} {
		p, _ := s.PodObject(t.Context(), "shop", name)
		p.Local = true
		c.SetPod(p.Pod)
	}
	found, _ := s.Policies(t.Context(), "shop")
	if err := c.SetPolicy(found[0]); err != nil {
		t.Fatal(err)
	}
	s.tables = c.Tables()
	return s
}

func (s *fakeShop) PodObject(_ context.Context, namespace, name string) (objects.Pod, error) {
	switch namespace + "/" + name {
	case "shop/web":
		return objects.Pod{Pod: policy.Pod{
			Namespace: "shop", Name: "web", Node: "n1", Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00::1:5")},
		}}, nil
	case "shop/db":
		return objects.Pod{Pod: policy.Pod{
			Namespace: "shop", Name: "db", Node: "n2", Labels: map[string]string{"app": "db"},
			Addresses: []netip.Addr{netip.MustParseAddr("10.244.2.7"), netip.MustParseAddr("fd00::2:7")},
		}}, nil
	case "default/proxy":
		return objects.Pod{Pod: policy.Pod{Namespace: "default", Name: "proxy"}, HostNetwork: true}, nil
	case "default/new":
		return objects.Pod{Pod: policy.Pod{Namespace: "default", Name: "new"}}, nil
	}
	return objects.Pod{}, fmt.Errorf("get pod %s/%s: %w", namespace, name, kube.ErrNotFound)
}

func (s *fakeShop) PodObjectAt(ctx context.Context, a netip.Addr) (objects.Pod, error) {
	if a == netip.MustParseAddr("10.244.1.5") {
		return s.PodObject(ctx, "shop", "web")
	}
	return objects.Pod{}, kube.ErrNotFound
}

func (s *fakeShop) NamespaceLabels(context.Context, string) (map[string]string, error) {
	return nil, nil
}

func (s *fakeShop) Policies(context.Context, string) ([]*networkingv1.NetworkPolicy, error) {
	return []*networkingv1.NetworkPolicy{{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"},
		Spec: networkingv1.NetworkPolicySpec{
			PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": "db"}},
			Ingress:     []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{IPBlock: &networkingv1.IPBlock{CIDR: "10.244.1.0/24"}}}}},
		},
	}}, nil
}

func (s *fakeShop) Node(_ context.Context, name string) (kube.Node, error) {
	return kube.Node{Name: name}, nil
}

// answer is sealaned explain.
func (s *fakeShop) answer(_ context.Context, cmd kube.Command) error {
	var x policy.Traffic
	for _, arg := range cmd.Args[2:] {
		name, value, _ := strings.Cut(arg, "=")
		switch name {
		case "--from":
			x.From = netip.MustParseAddr(value)
		case "--to":
			x.To = netip.MustParseAddr(value)
		case "--protocol":
			x.Protocol, _ = observe.ParseProtocol(value)
		case "--port":
			if _, err := fmt.Sscan(value, &x.Port); err != nil {
				return err
			}
		}
	}
	node := strings.TrimPrefix(cmd.Pod, "agent-")
	answer := observe.Explain(s.tables, x, observe.Here{Node: node, Pod: func(a netip.Addr) bool {
		return strings.Contains(a.String(), map[string]string{"n1": "1", "n2": "2"}[node]+map[bool]string{true: ".", false: ":"}[a.Is4()])
	}})
	return json.NewEncoder(cmd.Stdout).Encode(answer)
}

func explained(t *testing.T, s *fakeShop, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	err := explain(t.Context(), s, cli.Terminal{Out: &out}, asked{
		explainOptions: explainOptions{output: "text", timeout: time.Minute, settle: time.Millisecond}, from: args[0], to: args[1],
	})
	return out.String(), err
}

func TestExplain(t *testing.T) {
	out, err := explained(t, newShop(t), "shop/web", "shop/db:5432")
	want := `shop/web (10.244.1.5) -> shop/db (10.244.2.7) TCP port 5432: allowed
  egress of shop/web: allowed: no policy isolates it
    tables of node n1: allowed, they agree
  ingress of shop/db: allowed by shop/db ingress[0] from[0]
    tables of node n2: allowed, they agree
shop/web (fd00::1:5) -> shop/db (fd00::2:7) TCP port 5432: denied
  egress of shop/web: allowed: no policy isolates it
    tables of node n1: allowed, they agree
  ingress of shop/db: denied: isolated by shop/db, and no rule allows it
    tables of node n2: denied, they agree
`
	if diff := cmp.Diff(want, out); err != nil || diff != "" {
		t.Errorf("error %v\n%s", err, diff)
	}
	out, err = explained(t, newShop(t), "10.244.1.5", "shop/db:53/UDP")
	if err != nil || !strings.HasPrefix(out, "shop/web (10.244.1.5) -> shop/db (10.244.2.7) UDP port 53: allowed\n") || strings.Count(out, "->") != 1 {
		t.Errorf("by address: error %v\n%s", err, out)
	}
}

func TestExplainDisagrees(t *testing.T) {
	s := newShop(t)
	s.tables = policy.Tables{}
	out, err := explained(t, s, "shop/web", "shop/db:5432")
	if !errors.Is(err, cli.ErrDisagree) || cli.ExitStatus(err) != 2 || !strings.Contains(out, "THEY DISAGREE: the pod has no endpoint policy there") {
		t.Errorf("error %v\n%s", err, out)
	}

	// What has just changed is looked at again.
	s = newShop(t)
	right, asked := s.tables, 0
	s.tables = policy.Tables{}
	s.exec = func(ctx context.Context, cmd kube.Command) error {
		if asked++; asked == 5 { // two families, two directions
			s.tables = right
		}
		return s.answer(ctx, cmd)
	}
	if out, err := explained(t, s, "shop/web", "shop/db:5432"); err != nil {
		t.Errorf("error %v\n%s", err, out)
	}
}

func TestExplainWithoutAgent(t *testing.T) {
	s := newShop(t)
	s.agents = agentsOn("n1")
	out, err := explained(t, s, "shop/web", "shop/db:5432")
	if !errors.Is(err, cli.ErrBad) || cli.ExitStatus(err) != 1 || !strings.Contains(out, "tables of node n2: not known: no agent pod on the node\n") {
		t.Errorf("error %v\n%s", err, out)
	}
}

func TestExplainRefuses(t *testing.T) {
	s := newShop(t)
	for want, args := range map[string][]string{
		"no port":                      {"shop/web", "shop/db"},
		"the port is not":              {"shop/web", "shop/db:http"},
		"the protocol is not":          {"shop/web", "shop/db:80/icmp"},
		"needs brackets":               {"shop/web", "fd00::1:80"},
		"get pod default/web":          {"web", "shop/db:80"},
		"uses the network of its node": {"proxy", "shop/db:80"},
		"has no address":               {"new", "shop/db:80"},
		"no IP family in common":       {"10.244.1.5", "[fd00::2:7]:80"},
	} {
		if _, err := explained(t, s, args...); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v: error %v, want %q", args, err, want)
		}
	}
}
