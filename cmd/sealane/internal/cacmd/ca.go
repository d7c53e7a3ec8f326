// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cacmd

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status/words"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// New returns the command "ca".
func New(t cli.Terminal, c *cli.Connection) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Manage the certificate authority that vouches for all nodes",
	}
	cmd.AddCommand(newCAStatus(t, c), newCARotate(t, c), newCAExport(t, c), newCAImport(t, c))
	return cmd
}

// authority is what is published about the certificate authority, and who has it.
type authority interface {
	Trust(ctx context.Context) (cluster.Trust, error)
	Nodes(ctx context.Context) ([]kube.Node, error)
	NodeKeys(ctx context.Context) ([]v1alpha1.NodeKey, error)
	RequestRootRotation(ctx context.Context, at time.Time) error
}

// caReport is the answer of ca status.
type caReport struct {
	rootchange.Account
	// BundleHash is the hash of the bundle in force. Nodes is the number of nodes that
	// have published a NodeKey; Informed of them verify with that bundle.
	BundleHash string              `json:"bundleHash"`
	Nodes      int                 `json:"nodes"`
	Informed   int                 `json:"informed"`
	Waits      []rootchange.Holdup `json:"waits"` // nodes that the end of the phase waits for

	request string // when a new root was last requested; empty: never
}

// readAuthority gathers a report.
func readAuthority(ctx context.Context, from authority) (caReport, error) {
	trust, err := from.Trust(ctx)
	if err != nil {
		return caReport{}, err
	}
	if len(trust.Authority) == 0 {
		return caReport{}, errors.New("the controller has not published anything about its authority: is it running, and is it of this version?")
	}
	r := caReport{request: trust.Request, Waits: []rootchange.Holdup{}}
	if r.Account, err = rootchange.ParseAccount(trust.Authority); err != nil {
		return r, err
	}
	hash, err := keymgr.HashBundle(trust.Bundle)
	if err != nil {
		return r, err
	}
	r.BundleHash = hash.String()
	reports, err := nodeReports(ctx, from)
	if err != nil {
		return r, err
	}
	r.Nodes = len(reports)
	for _, n := range reports {
		if n.BundleHash == r.BundleHash {
			r.Informed++
		}
	}
	r.Waits = append(r.Waits, r.Stage(r.BundleHash).Waits(reports, time.Now())...)
	return r, nil
}

func nodeReports(ctx context.Context, from authority) ([]rootchange.NodeReport, error) {
	nodes, err := from.Nodes(ctx)
	if err != nil {
		return nil, err
	}
	keys, err := from.NodeKeys(ctx)
	if err != nil {
		return nil, err
	}
	published := map[string]v1alpha1.NodeKey{}
	for _, key := range keys {
		published[key.Name] = key
	}
	var out []rootchange.NodeReport
	for _, n := range nodes {
		key, ok := published[n.Name]
		if !ok || key.Spec.NodeUID != n.UID {
			continue
		}
		out = append(out, rootchange.NodeReport{
			Name: n.Name, Ready: n.Ready, BundleHash: key.Status.BundleHash, Chain: key.Spec.CertificateChain,
		})
	}
	return out, nil
}

func newCAStatus(t cli.Terminal, c *cli.Connection) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show the roots, the intermediate and the progress of a root rotation",
		Long: "Shows what the controller has published about its authority, and which nodes a root rotation is\n" +
			"waiting for. The exit status is 1 if the controller needs a root that is offline.",
		Args: cobra.NoArgs,
		RunE: c.With(func(ctx context.Context, client *cluster.Client, _ []string) error {
			r, err := readAuthority(ctx, client)
			if err != nil {
				return err
			}
			return showAuthority(t, r, output)
		}),
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "output format: text or json")
	return cmd
}

func showAuthority(t cli.Terminal, r caReport, output string) error {
	var err error
	switch output {
	case "text":
		err = r.write(t.Out)
	case "json":
		encoder := json.NewEncoder(t.Out)
		encoder.SetIndent("", "  ")
		err = encoder.Encode(r)
	default:
		return fmt.Errorf("--output=%s: want text or json", output)
	}
	if err != nil {
		return fmt.Errorf("print status: %w", err)
	}
	if r.RootWanted {
		return cli.ErrBad
	}
	return nil
}

// write prints the report for people. Texts in it come from the API, which could
// send control sequences: words.Printable makes them safe for a terminal.
func (r caReport) write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	place := "its key is offline"
	if r.RootOnline {
		place = "its key is in the cluster"
	}
	fmt.Fprintf(w, "mode %s, root: %s\n\nROOT\tSTATE\tENDS\tKEY ID\n", words.Printable(r.Mode), place)
	for _, root := range r.Roots {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\n", words.Printable(root.Serial), words.Printable(string(root.State)),
			day(root.NotAfter), words.Printable(root.KeyID))
	}
	fmt.Fprintf(w, "\nintermediate %s ends %s, renewal from %s\n",
		words.Printable(r.Issuer.Serial), day(r.Issuer.NotAfter), day(r.Issuer.RenewAt))
	if r.RootWanted {
		fmt.Fprintln(w, "THE ROOT IS WANTED: the intermediate is due for renewal. Run: sealane ca import-root FILE")
	}
	fmt.Fprintf(w, "trust bundle %.12s on %d of %d nodes\n", r.BundleHash, r.Informed, r.Nodes)
	fmt.Fprintf(w, "root rotation: %s%s\n", words.Printable(string(r.Phase)), since(r.Since))
	if r.Window != nil {
		fmt.Fprintf(w, "nodes renew from %s to %s\n", stamp(r.Window.From), stamp(r.Window.To))
	}
	for _, h := range r.Waits {
		fmt.Fprintf(w, "waiting for node %s, which %s\n", words.Printable(h.Node), words.Printable(h.Reason))
	}
	return w.Flush()
}

func day(t time.Time) string { return t.UTC().Format(time.DateTime) }

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }

func since(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return " since " + stamp(t)
}
