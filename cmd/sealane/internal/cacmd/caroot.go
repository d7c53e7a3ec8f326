// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cacmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr/ca"
)

const standardOutput = "-"

// exportOptions are the flags of ca export-root.
type exportOptions struct {
	out  string
	keep bool
}

func newCAExport(t cli.Terminal, c *cli.Connection) *cobra.Command {
	var o exportOptions
	cmd := &cobra.Command{
		Use:   "export-root --out FILE",
		Short: "Take the root offline: write it with its key to a file and remove the key from the cluster",
		Long: "Writes the certificate and the private key of the controller's own root (ca.mode self) to a new\n" +
			"file with mode 0600, reads it back, and then removes the key from the Secret " + kube.RootSecret + ". The\n" +
			"intermediate continues to issue; \"sealane ca status\" asks for the root when the intermediate is due.",
		Args: cobra.NoArgs,
		RunE: c.With(func(ctx context.Context, client *cluster.Client, _ []string) error {
			return exportRoot(ctx, client.SecretStore(kube.RootSecret), t, o)
		}),
	}
	cmd.Flags().StringVar(&o.out, "out", "", "file to write, which must not exist yet; - for standard output (needs --keep)")
	cmd.Flags().BoolVar(&o.keep, "keep", false, "make a backup: leave the key in the cluster")
	return cmd
}

func exportRoot(ctx context.Context, roots ca.Store, t cli.Terminal, o exportOptions) error {
	switch {
	case o.out == "":
		return errors.New("--out is missing: name the file to write")
	case o.out == standardOutput && !o.keep:
		return errors.New("--out=- needs --keep: standard output cannot be read back, so the key must stay in the cluster")
	}
	export, err := ca.ExportRoot(ctx, roots)
	if err != nil {
		return err
	}
	if o.out == standardOutput {
		_, err := t.Out.Write(export)
		return err
	}
	if err := writeNew(o.out, export); err != nil {
		return fmt.Errorf("write %s: %w", o.out, err)
	}
	back, err := os.ReadFile(o.out)
	if err != nil {
		return fmt.Errorf("read back: %w; the key stays in the cluster", err)
	}
	root, err := ca.ParseExport(back)
	if err != nil || !bytes.Equal(back, export) {
		return fmt.Errorf("read back %s: it differs from what was written (%w); the key stays in the cluster", o.out, err)
	}
	fmt.Fprintf(t.Out, "root %s written to %s and read back\n", root.SerialNumber.Text(16), o.out)
	if o.keep {
		return nil
	}
	if err := ca.RemoveRootKey(ctx, roots, export); err != nil {
		return err
	}
	fmt.Fprintln(t.Out, "the key is removed from the cluster; this file is now the only copy. Backups of etcd may still hold it")
	return nil
}

// writeNew writes a file that did not exist, and does not return before it is on
// disk.
func writeNew(path string, data []byte) (err error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	if _, err := f.Write(data); err != nil {
		return err
	}
	return f.Sync()
}

func newCAImport(t cli.Terminal, c *cli.Connection) *cobra.Command {
	return &cobra.Command{
		Use:   "import-root FILE",
		Short: "Bring the key of an exported root back, so that the controller can renew the intermediate",
		Args:  cobra.ExactArgs(1),
		RunE: c.With(func(ctx context.Context, client *cluster.Client, args []string) error {
			return importRoot(ctx, client.SecretStore(kube.RootSecret), t, args[0])
		}),
	}
}

func importRoot(ctx context.Context, roots ca.Store, t cli.Terminal, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	const most = 1 << 20
	export, err := io.ReadAll(io.LimitReader(f, most))
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	if err := ca.ImportRoot(ctx, roots, export); err != nil {
		return err
	}
	fmt.Fprintln(t.Out, "the root's key is in the cluster; the controller renews what is due within two minutes (see sealane ca status).\n"+
		"Remove the key again with sealane ca export-root")
	return nil
}
