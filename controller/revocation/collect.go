// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
)

// NodeKeyClient looks up nodes and removes their NodeKeys.
type NodeKeyClient interface {
	Node(ctx context.Context, name string) (kube.Node, error)
	DeleteNodeKey(ctx context.Context, name, nodeUID string) error
}

// Collector removes the NodeKeys of nodes that are gone or were replaced by a node
// of the same name, once they are no longer needed as evidence of what to revoke.
type Collector struct {
	Client  NodeKeyClient
	State   *State
	Metrics *Metrics
	Log     *slog.Logger
}

// Collect removes NodeKeys without their node. A snapshot may show a NodeKey before
// its node, so Collect looks up each node at the API server first.
func (c *Collector) Collect(ctx context.Context, s cluster.Snapshot) error {
	live := map[string]string{}
	for _, node := range s.Nodes {
		live[node.Name] = node.UID
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		// Until the identity is revoked, the NodeKey says what to revoke.
		if uid := s.Claims[name]; live[name] != uid && c.State.Settled(uid) {
			errs = append(errs, c.remove(ctx, name, uid))
		}
	}
	return errors.Join(errs...)
}

func (c *Collector) remove(ctx context.Context, name, nodeUID string) error {
	node, err := c.Client.Node(ctx, name)
	if err != nil && !errors.Is(err, kube.ErrNotFound) {
		return err
	}
	if err == nil && node.UID == nodeUID {
		return nil
	}
	if err := c.Client.DeleteNodeKey(ctx, name, nodeUID); err != nil {
		return err
	}
	c.Metrics.collected.Inc()
	c.Log.Info("removed the nodekey of a node that is gone", keyNode, name)
	return nil
}
