// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revoke

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
	"github.com/sealane/sealane/keymgr"
)

const (
	// maxMessage is the length that the API server accepts, in bytes.
	maxMessage = 256
	// askAgain is the interval at which the agents are asked whether they have cut a
	// lane; they do not announce it.
	askAgain = 200 * time.Millisecond
)

// orders is what revoke needs of the cluster, besides its agents.
type orders interface {
	Node(ctx context.Context, name string) (kube.Node, error)
	CreateRevocation(ctx context.Context, r cluster.Revocation) (cluster.Revocation, error)
	AwaitListed(ctx context.Context, name string) (cluster.Revocation, error)
}

// revokeOptions are the flags of sealane revoke node.
type revokeOptions struct {
	reason  string
	message string
	wait    time.Duration
	port    uint16
}

// New returns the command "revoke".
func New(t cli.Terminal, c *cli.Connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "revoke",
		Short: "Revoke an identity",
		Args:  cobra.NoArgs,
		RunE:  func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(newRevokeNode(t, c))
	return cmd
}

func newRevokeNode(t cli.Terminal, c *cli.Connection) *cobra.Command {
	o := revokeOptions{port: status.Port}
	cmd := &cobra.Command{
		Use:   "node NAME",
		Short: "Make every other node cut its lanes to a node, until it is readmitted",
		Long: "Revokes the node's identity: every other node cuts its lanes to it at once, whatever it\n" +
			"publishes, and the controller issues it no more certificates. Its pods stay; drain or delete\n" +
			"the node to move them. \"sealane readmit\" lifts the revocation.",
		Args:    cobra.ExactArgs(1),
		PreRunE: func(*cobra.Command, []string) error { return o.check() },
		RunE: c.With(func(ctx context.Context, client *cluster.Client, args []string) error {
			return revokeNode(ctx, client, t, target{name: args[0], options: o})
		}),
	}
	cmd.Flags().StringVar(&o.reason, "reason", string(keymgr.ReasonUnspecified), "reason: "+strings.Join(reasonWords(), ", "))
	cmd.Flags().StringVar(&o.message, "message", "", "explanation for other administrators")
	cmd.Flags().DurationVar(&o.wait, "wait", 0, "how long to wait until every other ready node has cut its lanes; 0: do not wait")
	cmd.Flags().Uint16Var(&o.port, "agent-port", o.port, "port of the agents (chart value agent.metricsPort)")
	return cmd
}

func reasonWords() []string {
	var words []string
	for _, r := range keymgr.RevocationReasons() {
		words = append(words, string(r))
	}
	return words
}

func (o revokeOptions) check() error {
	switch {
	case !slices.Contains(reasonWords(), o.reason):
		return fmt.Errorf("--reason=%s: want one of %s", o.reason, strings.Join(reasonWords(), ", "))
	case len(o.message) > maxMessage:
		return fmt.Errorf("--message has %d bytes: shorten it to %d", len(o.message), maxMessage)
	case o.wait < 0:
		return fmt.Errorf("--wait=%s: want 0 or more", o.wait)
	}
	return nil
}

// target is a node to revoke, and how.
type target struct {
	name    string
	options revokeOptions
}

// revocable is all that revoke needs.
type revocable interface {
	orders
	agents.Cluster
}

func revokeNode(ctx context.Context, c revocable, t cli.Terminal, v target) error {
	node, err := c.Node(ctx, v.name)
	if errors.Is(err, kube.ErrNotFound) {
		return fmt.Errorf("node %s: no such node; deleting a node has already revoked it", v.name)
	}
	if err != nil {
		return err
	}
	order := cluster.Revocation{
		Name: node.UID, Node: node.ID(),
		Reason: keymgr.RevocationReason(v.options.reason), Message: v.options.message,
	}
	start, said := time.Now(), "is revoked"
	if _, err := c.CreateRevocation(ctx, order); errors.Is(err, kube.ErrConflict) {
		said = "was already revoked before"
	} else if err != nil {
		return err
	}
	if err := t.Say("node %s (UID %s) %s\n", node.Name, node.UID, said); err != nil || v.options.wait == 0 {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, v.options.wait)
	defer cancel()
	listed, err := c.AwaitListed(ctx, order.Name)
	if err != nil {
		return fmt.Errorf("--wait=%s: %w; is the controller running?", v.options.wait, err)
	}
	count, err := awaitCut(ctx, c, listed, agents.Question{Port: v.options.port, Timeout: v.options.wait})
	if err != nil {
		return fmt.Errorf("--wait=%s: %w", v.options.wait, err)
	}
	return t.Say("list %d carries it, and all %d other ready nodes have cut their lanes, after %s\n",
		listed.Status.Number, count, time.Since(start).Round(time.Millisecond))
}

// awaitCut asks the agents of all other ready nodes until each has cut its lanes,
// and counts them.
func awaitCut(ctx context.Context, c agents.Cluster, r cluster.Revocation, q agents.Question) (int, error) {
	var last error
	for {
		count, open, err := lanesLeft(ctx, c, r, q)
		switch {
		case ctx.Err() != nil && last != nil:
			return 0, last // the answers of this round were cut short
		case err != nil:
			return 0, err
		case len(open) == 0:
			return count, nil
		}
		last = fmt.Errorf("%d of %d nodes have not cut their lanes: %s", len(open), count, strings.Join(open, "; "))
		select {
		case <-ctx.Done():
			return 0, last
		case <-time.After(askAgain):
		}
	}
}

// lanesLeft counts the other ready nodes. open says, for each node that may still have
// a lane, why.
func lanesLeft(ctx context.Context, c agents.Cluster, r cluster.Revocation, q agents.Question) (count int, open []string, err error) {
	all, err := c.Nodes(ctx)
	if err != nil {
		return 0, nil, err
	}
	answers, err := agents.Ask(ctx, c, q)
	if err != nil {
		return 0, nil, err
	}
	for _, a := range answers {
		if a.Name == r.Node.Name || !slices.ContainsFunc(all, func(n kube.Node) bool { return n.Name == a.Name && n.Ready }) {
			continue
		}
		count++
		if why := uncut(a, r); why != "" {
			open = append(open, a.Name+": "+why)
		}
	}
	return count, open, nil
}

// uncut says why a node may still have a lane to the revoked one; empty if it has none.
func uncut(a status.Answer, r cluster.Revocation) string {
	switch {
	case a.Err != nil:
		return a.Err.Error()
	case a.Node.Revocations.Number < r.Status.Number:
		return fmt.Sprintf("follows list %d", a.Node.Revocations.Number)
	}
	for _, p := range a.Node.Peers {
		if p.UID == r.Node.UID && p.State != status.Revoked {
			return "its lane is " + string(p.State)
		}
	}
	return ""
}
