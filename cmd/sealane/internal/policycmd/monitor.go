// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policycmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/cmd/sealane/internal/agents"
	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/observe"
)

// again is how long to wait before retrying a node that cannot be watched.
const again = 3 * time.Second

// monitorOptions are the flags of sealane monitor.
type monitorOptions struct {
	filter observe.Filter
	node   string
	output string
	again  time.Duration
}

// watched is what monitor needs of the cluster.
type watched interface {
	Nodes(ctx context.Context) ([]kube.Node, error)
	AgentPods(ctx context.Context) ([]kube.Pod, error)
	Exec(ctx context.Context, cmd kube.Command) error
}

// NewMonitor returns the command "monitor".
func NewMonitor(t cli.Terminal, c *cli.Connection) *cobra.Command {
	o := monitorOptions{again: again}
	cmd := &cobra.Command{
		Use:   "monitor",
		Short: "Show live what policies allow and deny, and which lane carries it",
		Long: "Shows each flow of a pod when it begins, and when a change of policies ends it: source, destination,\n" +
			"service, verdict, the policies and rules behind the verdict, and the lane that carries the flow to\n" +
			"another node, with the key generations of both nodes. A flow between two nodes appears twice: the\n" +
			"sending node judges egress and the receiving node judges ingress.\n\n" +
			"Runs until Ctrl-C. Needs the right to run commands in the agents' pods (pods/exec). Whoever has\n" +
			"that right controls the nodes.",
		Args: cobra.NoArgs,
	}
	cmd.RunE = c.With(func(ctx context.Context, client *cluster.Client, _ []string) error {
		return monitor(ctx, client, screen{out: t.Out, warnings: cmd.ErrOrStderr()}, o)
	})
	filters := flag.NewFlagSet("", flag.ContinueOnError)
	o.filter.Register(filters)
	cmd.Flags().AddGoFlagSet(filters)
	cmd.Flags().StringVar(&o.node, "node", "", "watch only this node")
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "output format: text, or json with one object per line")
	return cmd
}

// monitor shows what the nodes decide until ctx ends, which is not an error.
func monitor(ctx context.Context, from watched, s screen, o monitorOptions) error {
	if err := o.filter.Validate(); err != nil {
		return err
	}
	if o.output != "text" && o.output != "json" {
		return fmt.Errorf("--output=%s: want text or json", o.output)
	}
	all, err := from.Nodes(ctx)
	if err != nil {
		return err
	}
	if o.node != "" {
		if all, err = agents.Only(all, o.node); err != nil {
			return err
		}
	}
	s.json = o.output == "json"
	s.mu = &sync.Mutex{}
	group, ctx := errgroup.WithContext(ctx)
	for _, node := range all {
		group.Go(func() error { return watchNode(ctx, from, s, watch{monitorOptions: o, name: node.Name}) })
	}
	return group.Wait()
}

type watch struct {
	monitorOptions
	name string // of the node
}

// watchNode watches one node, and again whenever that ends. It returns only errors that
// all nodes would give.
func watchNode(ctx context.Context, from watched, s screen, w watch) error {
	last := ""
	for {
		err := watchOnce(ctx, from, s, w)
		if ctx.Err() != nil {
			return nil
		}
		if errors.Is(err, kube.ErrForbidden) || errors.Is(err, errPrint) {
			return err
		}
		if text := fmt.Sprintf("node %s cannot be watched, retrying: %v", w.name, err); text != last {
			s.warn(text)
			last = text
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(w.again):
		}
	}
}

func watchOnce(ctx context.Context, from watched, s screen, w watch) error {
	pods, err := from.AgentPods(ctx)
	if err != nil {
		return err
	}
	pod := agents.On(pods, w.name)
	if pod == nil {
		return agents.ErrNoAgent
	}
	var complaints bytes.Buffer
	err = from.Exec(ctx, kube.Command{
		Namespace: pod.Namespace, Pod: pod.Name, Container: agents.Container,
		Args:   append([]string{agents.Program, "monitor", "--until-eof"}, w.filter.Args()...),
		Stdout: &lines{show: s.show}, Stderr: &complaints,
	})
	return agents.WithStderr(err, &complaints)
}

// screen is where the records of all nodes go.
type screen struct {
	out, warnings io.Writer
	json          bool
	mu            *sync.Mutex // guards the two writers
}

func (s screen) show(line []byte) error {
	var r observe.Record
	if err := json.Unmarshal(line, &r); err != nil {
		return fmt.Errorf("read record: %w", err)
	}
	if r.Begun {
		s.warn("watching node " + r.Node)
		return nil
	}
	text := append(bytes.Clone(line), '\n')
	if !s.json {
		text = []byte(r.Text() + "\n")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.out.Write(text); err != nil {
		return fmt.Errorf("%w: %w", errPrint, err)
	}
	return nil
}

func (s screen) warn(text string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	fmt.Fprintln(s.warnings, text)
}

// lines calls show with each whole line that is written, without its end.
type lines struct {
	rest []byte
	show func([]byte) error
}

// Write implements io.Writer.
func (l *lines) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	for {
		line, rest, whole := bytes.Cut(l.rest, []byte("\n"))
		if !whole {
			return len(p), nil
		}
		if err := l.show(line); err != nil {
			return 0, err
		}
		l.rest = rest
	}
}
