// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package statuscmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/cmd/sealane/internal/agents"
	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/text"
)

// statusOptions are the flags of sealane status.
type statusOptions struct {
	output string
	agents.Question
}

// NewStatus returns the command "status".
func NewStatus(t cli.Terminal, c *cli.Connection) *cobra.Command {
	o := statusOptions{Question: agents.Question{Port: status.Port}}
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the cluster is encrypted, and the state of every node and lane",
		Long: "Asks the agent of every node. The first line is the verdict; whatever keeps it from being\n" +
			"\"encrypted\" follows. The exit status is 0 for \"encrypted\" and 1 for everything else.",
		Args: cobra.NoArgs,
		RunE: c.With(func(ctx context.Context, client *cluster.Client, _ []string) error {
			return showStatus(ctx, client, t, o)
		}),
	}
	cmd.Flags().StringVarP(&o.output, "output", "o", "text", "output format: text or json")
	cmd.Flags().StringVar(&o.Node, "node", "", "show only this node, in detail")
	cmd.Flags().Uint16Var(&o.Port, "agent-port", o.Port, "port of the agents (chart value agent.metricsPort)")
	cmd.Flags().DurationVar(&o.Timeout, "timeout", 10*time.Second, "how long to wait for the answer of each node")
	return cmd
}

func showStatus(ctx context.Context, from agents.Cluster, t cli.Terminal, o statusOptions) error {
	renderer := text.Renderer{Color: t.Color}
	render := map[string]func(status.Report) (string, error){
		"json": cli.JSON[status.Report],
		"text": func(r status.Report) (string, error) {
			if o.Node != "" {
				return renderer.Node(r), nil
			}
			return renderer.Cluster(r), nil
		},
	}[o.output]
	if render == nil {
		return fmt.Errorf("--output=%s: want text or json", o.output)
	}
	answers, err := agents.Ask(ctx, from, o.Question)
	if err != nil {
		return err
	}
	report := status.NewReport(status.Collect(answers))
	out, err := render(report)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(t.Out, out); err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	if !report.Verdict.Good() {
		return cli.ErrBad
	}
	return nil
}
