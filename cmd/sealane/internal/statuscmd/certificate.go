// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package statuscmd

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/text"
	"github.com/sealane/sealane/keymgr"
)

// keys is what certificate needs of the cluster.
type keys interface {
	TrustDomain(ctx context.Context) (string, error)
	TrustBundle(ctx context.Context) ([]byte, error)
	Node(ctx context.Context, name string) (kube.Node, error)
	NodeKey(ctx context.Context, name string) (keymgr.Signed, error)
}

// NewCertificate returns the command "certificate".
func NewCertificate(t cli.Terminal, c *cli.Connection) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "certificate NODE",
		Short: "Show who vouches for a node's WireGuard key, up to the root",
		Long: "Reads what the node has published and verifies it against the trust bundle, as every\n" +
			"other node does. The exit status is 0 if the key is vouched for and 1 if it is not.",
		Args: cobra.ExactArgs(1),
		RunE: c.With(func(ctx context.Context, client *cluster.Client, args []string) error {
			e, err := evidence(ctx, client, args[0])
			if err != nil {
				return err
			}
			return showCertificate(t, e, output)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "output format: text, or pem for the certificates alone")
	return cmd
}

// evidence gathers what is published about a node's key.
func evidence(ctx context.Context, from keys, name string) (status.Evidence, error) {
	e := status.Evidence{Now: time.Now()}
	node, err := from.Node(ctx, name)
	if err != nil {
		return e, err
	}
	e.Live = node.Live()
	if e.Signed, err = from.NodeKey(ctx, name); err != nil {
		return e, err
	}
	if e.TrustDomain, err = from.TrustDomain(ctx); err != nil {
		return e, err
	}
	e.Bundle, err = from.TrustBundle(ctx)
	return e, err
}

func showCertificate(t cli.Terminal, e status.Evidence, output string) error {
	voucher := status.Vouch(e)
	var out string
	switch output {
	case "text":
		out = text.Renderer{Color: t.Color}.Voucher(voucher)
	case "pem":
		out = string(keymgr.EncodeChain(e.Signed.Chain))
	default:
		return fmt.Errorf("--output=%s: want text or pem", output)
	}
	if _, err := io.WriteString(t.Out, out); err != nil {
		return fmt.Errorf("print certificate: %w", err)
	}
	switch {
	case voucher.Err == nil:
		return nil
	case output == "text":
		return cli.ErrBad // the text says why
	}
	return voucher.Err
}
