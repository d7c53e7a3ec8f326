// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revoke

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/text"
	"github.com/sealane/sealane/keymgr"
)

// pardons is what readmit needs of the cluster.
type pardons interface {
	Revocations(ctx context.Context) ([]cluster.Revocation, error)
	DeleteRevocation(ctx context.Context, name string) error
}

// NewReadmit returns the command "readmit".
func NewReadmit(t cli.Terminal, c *cli.Connection) *cobra.Command {
	return &cobra.Command{
		Use:   "readmit NAME",
		Short: "Lift the revocation of a node, which then returns with a new key",
		Long: "Deletes the revocation. The node's agent makes a new key, requests a certificate and\n" +
			"publishes a new statement. The keys that the node had before stay revoked.",
		Args: cobra.ExactArgs(1),
		RunE: c.With(func(ctx context.Context, client *cluster.Client, args []string) error {
			return readmit(ctx, client, t, args[0])
		}),
	}
}

func readmit(ctx context.Context, c pardons, t cli.Terminal, name string) error {
	all, err := c.Revocations(ctx)
	if err != nil {
		return err
	}
	all = slices.DeleteFunc(all, func(r cluster.Revocation) bool { return r.Node.Name != name })
	if len(all) == 0 {
		return fmt.Errorf("node %s is not revoked; sealane revocations lists the nodes that are", name)
	}
	for _, r := range all {
		if err := c.DeleteRevocation(ctx, r.Name); err != nil && !errors.Is(err, kube.ErrNotFound) {
			return err
		}
		if err := t.Say("node %s (UID %s) is readmitted; it returns with a new key\n", name, r.Node.UID); err != nil {
			return err
		}
	}
	return nil
}

// published is what revocations needs of the cluster.
type published interface {
	Revocations(ctx context.Context) ([]cluster.Revocation, error)
	Record(ctx context.Context) (cluster.RevocationRecord, error)
	TrustBundle(ctx context.Context) ([]byte, error)
	TrustDomain(ctx context.Context) (string, error)
}

// NewRevocations returns the command "revocations".
func NewRevocations(t cli.Terminal, c *cli.Connection) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "revocations",
		Short: "List revoked nodes, and readmitted nodes whose old keys stay revoked",
		Long: "Reads and verifies the signed list that every node follows, and adds the revocations that\n" +
			"the list does not carry yet.",
		Args: cobra.NoArgs,
		RunE: c.With(func(ctx context.Context, client *cluster.Client, _ []string) error {
			return showRevocations(ctx, client, t, output)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "output format: text or json")
	return cmd
}

func showRevocations(ctx context.Context, from published, t cli.Terminal, output string) error {
	now := time.Now()
	render := map[string]func(status.RevocationReport) (string, error){
		"json": cli.JSON[status.RevocationReport],
		"text": func(r status.RevocationReport) (string, error) {
			return text.Renderer{Color: t.Color}.Revocations(r, now), nil
		},
	}[output]
	if render == nil {
		return fmt.Errorf("--output=%s: want text or json", output)
	}
	list, err := readList(ctx, from, now)
	if err != nil {
		return err
	}
	given, err := from.Revocations(ctx)
	if err != nil {
		return err
	}
	out, err := render(revocationReport(list, given))
	if err != nil {
		return err
	}
	if _, err := io.WriteString(t.Out, out); err != nil {
		return fmt.Errorf("print revocations: %w", err)
	}
	return nil
}

// readList reads and verifies the published list as a node does. It returns the zero
// list if none is published.
func readList(ctx context.Context, from published, now time.Time) (keymgr.RevocationList, error) {
	record, err := from.Record(ctx)
	if err != nil || len(record.List) == 0 {
		return keymgr.RevocationList{}, err
	}
	bundle, err := from.TrustBundle(ctx)
	if err != nil {
		return keymgr.RevocationList{}, err
	}
	domain, err := from.TrustDomain(ctx)
	if err != nil {
		return keymgr.RevocationList{}, err
	}
	signed, err := keymgr.DecodeSigned(record.List)
	if err != nil {
		return keymgr.RevocationList{}, err
	}
	list, err := keymgr.VerifyRevocations(signed, bundle, domain, now)
	if err != nil {
		return list, fmt.Errorf("the published revocation list does not verify; nodes keep the previous one: %w", err)
	}
	return list, nil
}

func revocationReport(list keymgr.RevocationList, given []cluster.Revocation) status.RevocationReport {
	out := status.RevocationReport{Number: list.Number, IssuedAt: list.IssuedAt, Revocations: []status.Revocation{}}
	pending := map[string]cluster.Revocation{}
	for _, r := range given {
		pending[r.Node.UID] = r
	}
	for _, n := range list.Nodes {
		v := status.Revocation{Node: n.Name, UID: n.UID, State: status.NodeGone, Reason: string(n.Reason), At: n.At, Expires: n.Expires}
		if r, ordered := pending[n.UID]; ordered {
			v.State, v.Message = status.InForce, r.Message
			if !n.Blocked {
				v.State = status.Ordered // again, after it was readmitted
			}
			delete(pending, n.UID)
		} else if !n.Blocked {
			v.State = status.Readmitted
		}
		for _, k := range n.Keys {
			v.Keys = append(v.Keys, k.String())
		}
		for _, s := range n.Serials {
			v.Serials = append(v.Serials, s.Serial)
		}
		out.Revocations = append(out.Revocations, v)
	}
	for _, r := range given {
		if _, left := pending[r.Node.UID]; left {
			out.Revocations = append(out.Revocations, status.Revocation{
				Node: r.Node.Name, UID: r.Node.UID, State: status.Ordered, Reason: string(r.Reason), Message: r.Message,
			})
			delete(pending, r.Node.UID)
		}
	}
	return out
}
