// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command sealane shows whether the pods of a cluster talk encrypted, with which keys,
// who vouches for them, and what NetworkPolicies allow and deny. Installed as
// kubectl-sealane it is also "kubectl sealane".
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/cmd/sealane/internal/cacmd"
	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/cmd/sealane/internal/policycmd"
	"github.com/sealane/sealane/cmd/sealane/internal/revoke"
	"github.com/sealane/sealane/cmd/sealane/internal/rotate"
	"github.com/sealane/sealane/cmd/sealane/internal/statuscmd"
	"github.com/sealane/sealane/daemonset/kube"
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version = "dev"

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	t := cli.Terminal{Out: os.Stdout, Color: isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == ""}
	err := run(ctx, t, os.Args)
	stop()
	if err == nil {
		return
	}
	if !errors.Is(err, cli.ErrBad) {
		fmt.Fprintln(os.Stderr, "sealane:", err)
	}
	os.Exit(cli.ExitStatus(err))
}

// isTerminal reports whether a person may be reading.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func run(ctx context.Context, t cli.Terminal, args []string) error {
	root := newRoot(t, args[0])
	root.SetArgs(args[1:])
	return root.ExecuteContext(ctx)
}

func newRoot(t cli.Terminal, name string) *cobra.Command {
	c := cli.Connection{Config: kube.Config{UserAgent: "sealane/" + version}}
	root := &cobra.Command{
		Use:           "sealane",
		Short:         "Show which nodes encrypt to which, with which keys, who vouches for them, and what policies decide",
		SilenceErrors: true, // main prints them
		SilenceUsage:  true,
		Annotations:   map[string]string{},
	}
	if strings.HasPrefix(filepath.Base(name), "kubectl-") {
		root.Annotations[cobra.CommandDisplayNameAnnotation] = "kubectl sealane"
	}
	root.SetOut(t.Out)
	flags := root.PersistentFlags()
	flags.StringVar(&c.Config.Kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, else ~/.kube/config)")
	flags.StringVar(&c.Context, "context", "", "context of the kubeconfig (default: the current one)")
	flags.StringVarP(&c.Config.Namespace, "namespace", "n", kube.DefaultNamespace, "namespace of Sealane")
	root.AddCommand(statuscmd.NewStatus(t, &c), statuscmd.NewCertificate(t, &c), rotate.New(t, &c), cacmd.New(t, &c), newVersion())
	root.AddCommand(revoke.New(t, &c), revoke.NewReadmit(t, &c), revoke.NewRevocations(t, &c))
	root.AddCommand(policycmd.NewMonitor(t, &c), policycmd.NewPolicy(t, &c))
	return root
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { cmd.Println(version) },
	}
}
