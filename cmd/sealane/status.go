// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/status"
)

// atOnce bounds how many nodes are asked at the same time.
const atOnce = 32

// nodes is what status needs of the cluster.
type nodes interface {
	Nodes(ctx context.Context) ([]kube.Node, error)
	AgentPods(ctx context.Context) ([]kube.Pod, error)
	ProxyGet(ctx context.Context, t kube.Target, path string) ([]byte, error)
}

// statusOptions are the flags of sealane status.
type statusOptions struct {
	output  string
	node    string
	port    uint16
	timeout time.Duration
}

func newStatus(t terminal, c *connection) *cobra.Command {
	o := statusOptions{port: status.Port}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Tells whether the cluster is encrypted, and the state of every node and lane",
		Long: "Asks the agent of every node. The first line is the verdict; what keeps it from being\n" +
			"\"encrypted\" follows. Exits with 0 if all is well and with 1 if it is not.",
		Args: cobra.NoArgs,
		RunE: c.with(func(ctx context.Context, client *kube.Client, _ []string) error {
			return showStatus(ctx, client, t, o)
		}),
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "text or json")
	cmd.Flags().StringVar(&o.node, "node", "", "look at this node only, and at all of it")
	cmd.Flags().Uint16Var(&o.port, "agent-port", o.port, "port of the agents (chart value agent.metricsPort)")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 10*time.Second, "how long to wait for a node's answer")
	return cmd
}

func showStatus(ctx context.Context, from nodes, t terminal, o statusOptions) error {
	text := status.Text{Color: t.color}
	render := map[string]func(status.Report) (string, error){
		"json": asJSON[status.Report],
		"text": func(r status.Report) (string, error) {
			if o.node != "" {
				return text.Node(r), nil
			}
			return text.Cluster(r), nil
		},
	}[o.output]
	if render == nil {
		return fmt.Errorf("--output=%s: want text or json", o.output)
	}
	answers, err := ask(ctx, from, o)
	if err != nil {
		return err
	}
	report := status.NewReport(status.Collect(answers))
	out, err := render(report)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(t.out, out); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	if !report.Verdict.Good() {
		return errBad
	}
	return nil
}

func asJSON[T any](r T) (string, error) {
	raw, err := json.MarshalIndent(r, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode answer: %w", err)
	}
	return string(raw) + "\n", nil
}

// ask asks the agents of the nodes, or of the one node, at the same time.
func ask(ctx context.Context, from nodes, o statusOptions) ([]status.Answer, error) {
	all, err := from.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	if o.node != "" {
		if all, err = only(all, o.node); err != nil {
			return nil, err
		}
	}
	pods, err := from.AgentPods(ctx)
	if err != nil {
		return nil, err
	}
	answers := make([]status.Answer, len(all))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, node := range all {
		group.Go(func() error {
			report, err := askNode(ctx, from, agentOn(pods, node.Name), o)
			answers[i] = status.Answer{Name: node.Name, Node: report, Err: err}
			return nil
		})
	}
	return answers, group.Wait()
}

func only(all []kube.Node, name string) ([]kube.Node, error) {
	i := slices.IndexFunc(all, func(n kube.Node) bool { return n.Name == name })
	if i < 0 {
		names := make([]string, len(all))
		for i, n := range all {
			names[i] = n.Name
		}
		return nil, fmt.Errorf("--node=%s: no such node; there are %s", name, strings.Join(names, ", "))
	}
	return all[i : i+1], nil
}

// agentOn finds a node's agent: while one replaces another there are two pods.
func agentOn(pods []kube.Pod, node string) *kube.Pod {
	here := slices.DeleteFunc(slices.Clone(pods), func(p kube.Pod) bool { return p.Node != node || p.Finished })
	if len(here) == 0 {
		return nil
	}
	best := slices.MinFunc(here, func(a, b kube.Pod) int { return cmp.Compare(rank(a), rank(b)) })
	return &best
}

func rank(p kube.Pod) int {
	switch {
	case p.Deleting:
		return 2
	case !p.Ready:
		return 1
	}
	return 0
}

func askNode(ctx context.Context, from nodes, pod *kube.Pod, o statusOptions) (status.Node, error) {
	if pod == nil {
		return status.Node{}, errors.New("no agent pod on the node")
	}
	limited, cancel := context.WithTimeout(ctx, o.timeout)
	defer cancel()
	raw, err := from.ProxyGet(limited, kube.Target{Namespace: pod.Namespace, Pod: pod.Name, Port: o.port}, status.Path)
	switch {
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		return status.Node{}, fmt.Errorf("no answer from pod %s within %s", pod.Name, o.timeout)
	case err != nil:
		return status.Node{}, err
	}
	var node status.Node
	if err := json.Unmarshal(raw, &node); err != nil {
		return status.Node{}, fmt.Errorf("read answer of pod %s: %w", pod.Name, err)
	}
	return node, nil
}
