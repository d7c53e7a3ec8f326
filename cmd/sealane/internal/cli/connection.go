// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cli

import (
	"context"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
)

// Connection says how to reach the cluster.
type Connection struct {
	Config  kube.Config
	Context string // of the kubeconfig; empty: the current one
}

// With returns the body of a command that talks to the cluster.
func (c *Connection) With(do func(ctx context.Context, client *cluster.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		client, err := kube.NewUserClient(c.Config, c.Context)
		if err != nil {
			return err
		}
		defer client.Close()
		return do(cmd.Context(), cluster.New(client), args)
	}
}
