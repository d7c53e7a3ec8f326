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
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/cmd/sealane/internal/agents"
	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/daemonset/observe"
	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/oracle"
)

// settle is how long a change of policies may take to reach the nodes before a
// difference counts.
const settle = time.Second

// NewPolicy returns the command "policy".
func NewPolicy(t cli.Terminal, c *cli.Connection) *cobra.Command {
	cmd := &cobra.Command{Use: "policy", Short: "Explain what NetworkPolicies allow"}
	cmd.AddCommand(newPolicyExplain(t, c))
	return cmd
}

// explainOptions are the flags of sealane policy explain.
type explainOptions struct {
	output  string
	timeout time.Duration
	settle  time.Duration
}

func newPolicyExplain(t cli.Terminal, c *cli.Connection) *cobra.Command {
	o := explainOptions{settle: settle}
	cmd := &cobra.Command{
		Use:   "explain FROM TO:PORT[/PROTOCOL]",
		Short: "Show which policies allow or deny a connection, and whether the nodes agree",
		Long: "FROM and TO are pods (namespace/name; a name alone is in the namespace default) or IP addresses\n" +
			"(IPv6 with a port: [fd00::1]:80); PROTOCOL is tcp (default), udp or sctp. For each IP family that\n" +
			"both ends have, and for each direction, the command shows which policies of the API isolate the\n" +
			"pod and which rules allow the connection, and then what the tables in the kernel of the pod's\n" +
			"node decide.\n\n" +
			"The exit status is 0 if both agree, whatever the answer; 2 if they differ; 1 if a node could not\n" +
			"be asked. Needs the right to run commands in the agents' pods (pods/exec).",
		Args: cobra.ExactArgs(2),
		RunE: c.With(func(ctx context.Context, client *cluster.Client, args []string) error {
			return explain(ctx, objects.Reader{Client: client.Client}, t, asked{explainOptions: o, from: args[0], to: args[1]})
		}),
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "output format: text or json")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Second, "how long to wait for the answer of each node")
	return cmd
}

// asked is a question as it was typed.
type asked struct {
	explainOptions
	from, to string
}

// policies are the objects that policies are decided by.
type policies interface {
	PodObject(ctx context.Context, namespace, name string) (objects.Pod, error)
	PodObjectAt(ctx context.Context, address netip.Addr) (objects.Pod, error)
	NamespaceLabels(ctx context.Context, name string) (map[string]string, error)
	Policies(ctx context.Context, namespace string) ([]*networkingv1.NetworkPolicy, error)
}

// explaining is what explain needs of the cluster.
type explaining interface {
	policies
	Node(ctx context.Context, name string) (kube.Node, error)
	AgentPods(ctx context.Context) ([]kube.Pod, error)
	Exec(ctx context.Context, cmd kube.Command) error
}

func explain(ctx context.Context, from explaining, t cli.Terminal, a asked) error {
	if a.output != "text" && a.output != "json" {
		return fmt.Errorf("--output=%s: want text or json", a.output)
	}
	to, err := parseTarget(a.to)
	if err != nil {
		return err
	}
	all, err := explainOnce(ctx, from, a, to)
	if err == nil && slices.ContainsFunc(all, observe.Explanation.Disagrees) {
		select { // perhaps something has just changed
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(a.settle):
		}
		all, err = explainOnce(ctx, from, a, to)
	}
	if err != nil {
		return err
	}
	if err := printExplanations(t, all, a.output); err != nil {
		return err
	}
	switch {
	case slices.ContainsFunc(all, observe.Explanation.Disagrees):
		return cli.ErrDisagree
	case slices.ContainsFunc(all, observe.Explanation.Incomplete):
		return cli.ErrBad
	}
	return nil
}

func printExplanations(t cli.Terminal, all []observe.Explanation, output string) error {
	var out string
	var err error
	if output == "json" {
		out, err = cli.JSON(all)
	} else {
		for _, e := range all {
			out += e.Text()
		}
	}
	if err != nil {
		return err
	}
	if _, err := io.WriteString(t.Out, out); err != nil {
		return fmt.Errorf("print explanation: %w", err)
	}
	return nil
}

// destination is TO:PORT[/PROTOCOL].
type destination struct {
	end      string
	port     uint16
	protocol uint8
}

func parseTarget(text string) (destination, error) {
	bad := func(why string) (destination, error) {
		return destination{}, fmt.Errorf("%q: %s; write it like shop/web:80, shop/dns:53/udp or [fd00::1]:80", text, why)
	}
	i := strings.LastIndex(text, ":")
	if i < 0 {
		return bad("no port")
	}
	out := destination{end: text[:i], protocol: ipproto.TCP}
	port, protocol, named := strings.Cut(text[i+1:], "/")
	number, err := strconv.ParseUint(port, 10, 16)
	if err != nil || number == 0 {
		return bad("the port is not 1 to 65535")
	}
	out.port = uint16(number)
	if named {
		var known bool
		out.protocol, known = observe.ParseProtocol(protocol)
		if !known || !slices.Contains([]uint8{ipproto.TCP, ipproto.UDP, ipproto.SCTP}, out.protocol) {
			return bad("the protocol is not tcp, udp or sctp")
		}
	}
	if inner, ok := strings.CutPrefix(out.end, "["); ok {
		out.end = strings.TrimSuffix(inner, "]")
	} else if strings.Contains(out.end, ":") {
		return bad("an IPv6 address with a port needs brackets")
	}
	return out, nil
}

// finder collects the objects that a decision depends on.
type finder struct {
	from    explaining
	cluster oracle.Cluster
}

// end finds the addresses behind a name, and adds the pod that has them.
func (f *finder) end(ctx context.Context, name string) ([]netip.Addr, error) {
	if a, err := netip.ParseAddr(name); err == nil {
		pod, err := f.from.PodObjectAt(ctx, a)
		if errors.Is(err, kube.ErrNotFound) {
			return []netip.Addr{a}, nil
		}
		if err != nil {
			return nil, err
		}
		return []netip.Addr{a}, f.enter(ctx, pod)
	}
	namespace, short, qualified := strings.Cut(name, "/")
	if !qualified {
		namespace, short = "default", name
	}
	pod, err := f.from.PodObject(ctx, namespace, short)
	switch {
	case err != nil:
		return nil, err
	case pod.HostNetwork:
		return nil, fmt.Errorf("pod %s/%s uses the network of its node, where policies do not apply; use the node's address to see what it may reach", namespace, short)
	case len(pod.Addresses) == 0:
		return nil, fmt.Errorf("pod %s/%s has no address: it has not started, or has finished", namespace, short)
	}
	return pod.Addresses, f.enter(ctx, pod)
}

func (f *finder) enter(ctx context.Context, pod objects.Pod) error {
	node, err := f.from.Node(ctx, pod.Node)
	if err != nil {
		return err
	}
	f.cluster.Pods = append(f.cluster.Pods, pod.Pod)
	f.cluster.Nodes[node.Name] = node.Addresses
	if _, seen := f.cluster.Namespaces[pod.Namespace]; seen {
		return nil
	}
	if f.cluster.Namespaces[pod.Namespace], err = f.from.NamespaceLabels(ctx, pod.Namespace); err != nil {
		return err
	}
	found, err := f.from.Policies(ctx, pod.Namespace)
	f.cluster.Policies = append(f.cluster.Policies, found...)
	return err
}

// nodeOf returns the node that a pod runs on.
func (f *finder) nodeOf(pod string) string {
	for _, p := range f.cluster.Pods {
		if p.Namespace+"/"+p.Name == pod {
			return p.Node
		}
	}
	return ""
}

func explainOnce(ctx context.Context, from explaining, a asked, to destination) ([]observe.Explanation, error) {
	f := &finder{from: from, cluster: oracle.Cluster{Namespaces: map[string]map[string]string{}, Nodes: map[string][]netip.Addr{}}}
	sources, err := f.end(ctx, a.from)
	if err != nil {
		return nil, err
	}
	destinations, err := f.end(ctx, to.end)
	if err != nil {
		return nil, err
	}
	pods, err := from.AgentPods(ctx)
	if err != nil {
		return nil, err
	}
	var all []observe.Explanation
	for _, s := range sources {
		for _, d := range destinations {
			if s.Is4() != d.Is4() {
				continue
			}
			x := policy.Traffic{From: s, To: d, Protocol: to.protocol, Port: to.port}
			e := observe.NewExplanation(oracle.Decide(f.cluster, x))
			e.Egress.Node, e.Ingress.Node = f.nodeOf(e.Egress.Pod), f.nodeOf(e.Ingress.Pod)
			limited, cancel := context.WithTimeout(ctx, a.timeout)
			askTables(limited, from, pods, tablesOf{x, &e})
			cancel()
			all = append(all, e)
		}
	}
	if len(all) == 0 {
		return nil, errors.New("the two ends have no IP family in common")
	}
	return all, nil
}

// tablesOf is an explanation that lacks what the tables say.
type tablesOf struct {
	x policy.Traffic
	e *observe.Explanation
}

// askTables asks each node for its own direction.
func askTables(ctx context.Context, from explaining, pods []kube.Pod, t tablesOf) {
	type reply struct {
		observe.Answer
		err error
	}
	replies := map[string]reply{} // by node: one may have both directions
	for _, d := range []*observe.Direction{&t.e.Egress, &t.e.Ingress} {
		if d.Pod == "" {
			continue
		}
		answer, known := replies[d.Node]
		if !known {
			answer.Answer, answer.err = askTable(ctx, from, agents.On(pods, d.Node), t.x)
			replies[d.Node] = answer
		}
		found := answer.Ingress
		if d == &t.e.Egress {
			found = answer.Egress
		}
		switch {
		case answer.err != nil:
			d.Problem = answer.err.Error()
		case found == nil:
			d.Problem = "the node does not know that address as one of its pods"
		}
		d.Tables = found
		t.e.Service = max(t.e.Service, answer.Service)
	}
}

func askTable(ctx context.Context, from explaining, agent *kube.Pod, x policy.Traffic) (observe.Answer, error) {
	if agent == nil {
		return observe.Answer{}, agents.ErrNoAgent
	}
	var out, complaints bytes.Buffer
	err := from.Exec(ctx, kube.Command{
		Namespace: agent.Namespace, Pod: agent.Name, Container: agents.Container, Stdout: &out, Stderr: &complaints,
		Args: []string{
			agents.Program, "explain", "--from=" + x.From.String(), "--to=" + x.To.String(),
			fmt.Sprintf("--protocol=%d", x.Protocol), fmt.Sprintf("--port=%d", x.Port),
		},
	})
	if err != nil {
		return observe.Answer{}, agents.WithStderr(err, &complaints)
	}
	var answer observe.Answer
	if err := json.Unmarshal(out.Bytes(), &answer); err != nil {
		return answer, fmt.Errorf("read answer of pod %s: %w", agent.Name, err)
	}
	return answer, nil
}
