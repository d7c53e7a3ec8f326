// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/cmd/sealane/internal/agents"
	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status"
)

// rotateOptions are the flags of sealane rotate.
type rotateOptions struct {
	all         bool
	compromised bool
	noWait      bool
	wait        time.Duration
	asking      agents.Question
}

// look is the interval at which rotate asks the agents for their progress.
const look = time.Second

// New returns the command "rotate".
func New(t cli.Terminal, c *cli.Connection) *cobra.Command {
	o := rotateOptions{asking: agents.Question{Port: status.Port, Timeout: 10 * time.Second}}
	cmd := &cobra.Command{
		Use:   "rotate NODE... | --all",
		Short: "Replace the WireGuard keys of nodes without losing a packet",
		Long: "Asks nodes for new WireGuard keys and waits until the old ones are gone. Peers move to a\n" +
			"new key once a handshake has proved that it works, so no packet is lost. With --compromised,\n" +
			"all nodes drop the old key at once; the lanes break until both ends have the new key.",
		PreRunE: func(_ *cobra.Command, args []string) error {
			if o.all == (len(args) > 0) {
				return errors.New("name the nodes, or use --all for all of them")
			}
			return nil
		},
		RunE: c.With(func(ctx context.Context, client *cluster.Client, args []string) error {
			return rotate(ctx, client, t, o, args)
		}),
	}
	cmd.Flags().BoolVar(&o.all, "all", false, "rotate the keys of all nodes at once")
	cmd.Flags().BoolVar(&o.compromised, "compromised", false, "drop the old key at once because somebody else may have it; this interrupts the lanes")
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "return without waiting until the old keys are gone")
	cmd.Flags().DurationVar(&o.wait, "timeout", 10*time.Minute, "how long to wait until the old keys are gone")
	cmd.Flags().Uint16Var(&o.asking.Port, "agent-port", o.asking.Port, "port of the agents (chart value agent.metricsPort)")
	return cmd
}

// rotating is what rotate needs of the cluster.
type rotating interface {
	agents.Cluster
	RequestRotation(ctx context.Context, node string, r cluster.RotationRequest) error
}

func rotate(ctx context.Context, client rotating, t cli.Terminal, o rotateOptions, names []string) error {
	all, err := client.Nodes(ctx)
	if err != nil {
		return err
	}
	if names, err = chosen(all, names); err != nil {
		return err
	}
	// In whole seconds, as keys are dated: one made in this second is new enough.
	request := cluster.RotationRequest{At: time.Now().Truncate(time.Second)}
	if o.compromised {
		request.Compromised = request.At
	}
	for _, name := range names {
		if err := client.RequestRotation(ctx, name, request); err != nil {
			return err
		}
	}
	fmt.Fprintf(t.Out, "asked %s for new keys\n", strings.Join(names, ", "))
	if o.noWait {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, o.wait)
	defer cancel()
	return awaitRotation(ctx, client, t, o, waitFor{names: names, since: request.At})
}

// chosen checks the names of nodes; no names stand for all nodes.
func chosen(all []kube.Node, names []string) ([]string, error) {
	var known []string
	for _, n := range all {
		known = append(known, n.Name)
	}
	if len(names) == 0 {
		return known, nil
	}
	for _, name := range names {
		if !slices.Contains(known, name) {
			return nil, fmt.Errorf("node %s: no such node; there are %s", name, strings.Join(known, ", "))
		}
	}
	return names, nil
}

// waitFor is what awaitRotation waits for: keys newer than since on these nodes.
type waitFor struct {
	names []string
	since time.Time
}

func awaitRotation(ctx context.Context, client agents.Cluster, t cli.Terminal, o rotateOptions, w waitFor) error {
	shown := map[string]string{}
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		answers, err := agents.Ask(ctx, client, o.asking)
		if err != nil && ctx.Err() == nil {
			return err
		}
		open := 0
		for _, a := range answers {
			if !slices.Contains(w.names, a.Name) {
				continue
			}
			text, done := progress(a, w.since)
			if !done {
				open++
			}
			if shown[a.Name] != text {
				shown[a.Name] = text
				fmt.Fprintf(t.Out, "%s: %s\n", a.Name, text)
			}
		}
		if open == 0 && err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d nodes have not finished; they continue on their own, see sealane status", open, len(w.names))
		case <-tick.C:
		}
	}
}

func progress(a status.Answer, since time.Time) (text string, done bool) {
	if a.Err != nil {
		return "no answer: " + a.Err.Error(), false
	}
	k, r := a.Node.Key, a.Node.Rotation
	switch {
	case k.Since.Before(since):
		return "waiting for the new key", false
	case r.State != "steady":
		text = fmt.Sprintf("generation %d %s", k.Generation, r.State)
		if len(r.Waiting) > 0 {
			text += ", waiting for " + strings.Join(r.Waiting, ", ")
		}
		return text, false
	}
	return fmt.Sprintf("done: generation %d, key %s", k.Generation, k.PublicKey), true
}
