// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/clientcmd"
)

// NewUserClient makes a Client for a person at a shell: it finds kubeconfig
// files as kubectl does (cfg.Kubeconfig, else the list in $KUBECONFIG, else
// ~/.kube/config, else the pod that it runs in) and takes the named context of
// them, or the current one if the name is empty.
func NewUserClient(cfg Config, contextName string) (*Client, error) {
	cfg = cfg.withDefaults()
	server, err := parseAPIServer(cfg.APIServer)
	if err != nil {
		return nil, err
	}
	rules := clientcmd.NewDefaultClientConfigLoadingRules()
	rules.ExplicitPath = cfg.Kubeconfig
	overrides := &clientcmd.ConfigOverrides{CurrentContext: contextName}
	overrides.ClusterInfo.Server = server
	base, err := clientcmd.NewNonInteractiveDeferredLoadingClientConfig(rules, overrides).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%w: read kubeconfig: %w", ErrBadConfig, err)
	}
	return connect(base, cfg)
}

// Nodes returns every node, from the API server itself.
func (c *Client) Nodes(ctx context.Context) ([]Node, error) {
	list, err := c.conn.Core.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, Wrap("list nodes", err)
	}
	out := make([]Node, 0, len(list.Items))
	for i := range list.Items {
		node, err := NodeOf(&list.Items[i])
		if err != nil {
			return nil, err
		}
		out = append(out, node)
	}
	return out, nil
}
