// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"path/filepath"

	"github.com/sealane/sealane/daemonset/checkpoint"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/overlay"
)

// errUnfit is a data path that would let nothing through to pods that are there.
var errUnfit = errors.New("the maps of an earlier version are in use, and the policies in them cannot be taken over without the API server")

// begin learns who this node is, from disk if the API server does not answer.
func (d *daemon) begin(ctx context.Context) (*checkpoint.Store, error) {
	cfg := checkpoint.Config{
		Path: filepath.Join(d.cfg.StateDir, "checkpoint.json"), Node: d.cfg.NodeName, Cluster: d.client, ClusterCIDRs: d.cfg.ClusterPodCIDRs,
		Report: func(err error) { d.state.Report(readiness.Node, err) }, Logger: d.log,
	}
	if d.cfg.Lane != overlay.VXLAN {
		cfg.Keys = filepath.Join(d.cfg.StateDir, "keys")
	}
	if d.recalled > 0 && !d.datapath.Inherited() {
		cfg.Unfit = errUnfit
	}
	return checkpoint.Load(ctx, cfg)
}
