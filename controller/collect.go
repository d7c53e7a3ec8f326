// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"errors"
	"log/slog"
	"maps"
	"slices"

	"github.com/sealane/sealane/daemonset/kube"
)

// Registry is where nodes and what they published are looked up and removed.
type Registry interface {
	Node(ctx context.Context, name string) (kube.Node, error)
	DeleteNodeKey(ctx context.Context, name, nodeUID string) error
}

// collector removes the NodeKeys of nodes that are gone or were made anew.
type collector struct {
	registry Registry
	register *register
	metrics  *metrics
	log      *slog.Logger
}

// collect looks for NodeKeys without their node. A snapshot may show a NodeKey
// before its node, so each find is checked at the API server before it goes.
func (c *collector) collect(ctx context.Context, s kube.Snapshot) error {
	live := map[string]string{}
	for _, node := range s.Nodes {
		live[node.Name] = node.UID
	}
	var errs []error
	for _, name := range slices.Sorted(maps.Keys(s.Claims)) {
		// Until the identity is revoked, the NodeKey says what to revoke.
		if uid := s.Claims[name]; live[name] != uid && c.register.isSettled(uid) {
			errs = append(errs, c.remove(ctx, name, uid))
		}
	}
	return errors.Join(errs...)
}

func (c *collector) remove(ctx context.Context, name, nodeUID string) error {
	node, err := c.registry.Node(ctx, name)
	if err != nil && !errors.Is(err, kube.ErrNotFound) {
		return err
	}
	if err == nil && node.UID == nodeUID {
		return nil
	}
	if err := c.registry.DeleteNodeKey(ctx, name, nodeUID); err != nil {
		return err
	}
	c.metrics.collected.Inc()
	c.log.Info("nodekey of a node that is gone removed", keyNode, name)
	return nil
}
