// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agents

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/status"
)

// atOnce bounds how many nodes are asked at the same time.
const atOnce = 32

// Cluster is what it takes to ask the agents.
type Cluster interface {
	Nodes(ctx context.Context) ([]kube.Node, error)
	AgentPods(ctx context.Context) ([]kube.Pod, error)
	ProxyGet(ctx context.Context, t kube.Target, path string) ([]byte, error)
}

// Question says whom to ask, and for how long.
type Question struct {
	Node    string        // only this one; empty: all nodes
	Port    uint16        // of the agents
	Timeout time.Duration // for the answer of one node
}

// Ask asks the agents of all nodes, or of the one node, at the same time.
func Ask(ctx context.Context, from Cluster, q Question) ([]status.Answer, error) {
	all, err := from.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	if q.Node != "" {
		if all, err = Only(all, q.Node); err != nil {
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
			report, err := askNode(ctx, from, On(pods, node.Name), q)
			answers[i] = status.Answer{Name: node.Name, Node: report, Err: err}
			return nil
		})
	}
	return answers, group.Wait()
}

// Only returns the node of that name alone.
func Only(all []kube.Node, name string) ([]kube.Node, error) {
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

// On returns the pod of a node's agent, nil if there is none. While one agent
// replaces another there are two pods; On prefers the one that is ready and stays.
func On(pods []kube.Pod, node string) *kube.Pod {
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

func askNode(ctx context.Context, from Cluster, pod *kube.Pod, q Question) (status.Node, error) {
	if pod == nil {
		return status.Node{}, ErrNoAgent
	}
	limited, cancel := context.WithTimeout(ctx, q.Timeout)
	defer cancel()
	raw, err := from.ProxyGet(limited, kube.Target{Namespace: pod.Namespace, Pod: pod.Name, Port: q.Port}, status.Path)
	switch {
	case errors.Is(limited.Err(), context.DeadlineExceeded):
		return status.Node{}, fmt.Errorf("no answer from pod %s within %s", pod.Name, q.Timeout)
	case err != nil:
		return status.Node{}, err
	}
	var node status.Node
	if err := json.Unmarshal(raw, &node); err != nil {
		return status.Node{}, fmt.Errorf("read answer of pod %s: %w", pod.Name, err)
	}
	return node, nil
}
