// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command sealane shows whether a cluster's pods talk encrypted, with which
// keys, who vouches for them, and what NetworkPolicies allow and deny. Linked as
// kubectl-sealane it is also "kubectl sealane".
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/daemonset/kube"
)

// version is set by the build: -ldflags "-X main.version=v1.2.3".
var version = "dev"

// errBad says that the answer, already printed, is not the good one.
var errBad = errors.New("not as it should be")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	t := terminal{out: os.Stdout, color: isTerminal(os.Stdout) && os.Getenv("NO_COLOR") == ""}
	err := run(ctx, t, os.Args)
	stop()
	if err == nil {
		return
	}
	if !errors.Is(err, errBad) {
		fmt.Fprintln(os.Stderr, "sealane:", err)
	}
	os.Exit(exitStatus(err))
}

// exitStatus is 2 for what a script must tell from an answer that failed.
func exitStatus(err error) int {
	if errors.Is(err, errDisagree) {
		return 2
	}
	return 1
}

// terminal is where the answers go.
type terminal struct {
	out   io.Writer
	color bool
}

// isTerminal tells whether a person may be reading.
func isTerminal(f *os.File) bool {
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}

func run(ctx context.Context, t terminal, args []string) error {
	root := newRoot(t, args[0])
	root.SetArgs(args[1:])
	return root.ExecuteContext(ctx)
}

func newRoot(t terminal, name string) *cobra.Command {
	var c connection
	root := &cobra.Command{
		Use:           "sealane",
		Short:         "Shows who encrypts to whom, with which key, who vouches for it, and what policies decide",
		SilenceErrors: true, // main prints them
		SilenceUsage:  true,
		Annotations:   map[string]string{},
	}
	if strings.HasPrefix(filepath.Base(name), "kubectl-") {
		root.Annotations[cobra.CommandDisplayNameAnnotation] = "kubectl sealane"
	}
	root.SetOut(t.out)
	flags := root.PersistentFlags()
	flags.StringVar(&c.config.Kubeconfig, "kubeconfig", "", "kubeconfig file (default: $KUBECONFIG, else ~/.kube/config)")
	flags.StringVar(&c.context, "context", "", "context of the kubeconfig (default: the current one)")
	flags.StringVarP(&c.config.Namespace, "namespace", "n", kube.DefaultNamespace, "namespace that Sealane runs in")
	root.AddCommand(newStatus(t, &c), newCertificate(t, &c), newRotate(t, &c), newCA(t, &c), newVersion())
	root.AddCommand(newRevoke(t, &c), newReadmit(t, &c), newRevocations(t, &c))
	root.AddCommand(newMonitor(t, &c), newPolicy(t, &c))
	return root
}

// connection is how to reach the cluster.
type connection struct {
	config  kube.Config
	context string
}

// with returns what a command runs that talks to the cluster.
func (c *connection) with(do func(ctx context.Context, client *kube.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		config := c.config
		config.UserAgent = "sealane/" + version
		client, err := kube.NewUserClient(config, c.context)
		if err != nil {
			return err
		}
		defer client.Close()
		return do(cmd.Context(), client, args)
	}
}

func newVersion() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Prints the version of this program",
		Args:  cobra.NoArgs,
		Run:   func(cmd *cobra.Command, _ []string) { cmd.Println(version) },
	}
}
