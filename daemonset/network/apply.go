// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
)

// apply brings the plan of v to the host, and returns the names of the uplinks. The peers
// that must go have gone before; routes into lanes go first here, whatever fails later.
func (l *Loop) apply(ctx context.Context, v *View, host host) ([]string, error) {
	retract := l.Host.Retract(v.Plan)
	if retract != nil {
		retract = fmt.Errorf("remove routes: %w", retract)
	}
	uplinks, err := l.build(ctx, v, host)
	return uplinks, errors.Join(retract, err)
}

// build makes everything that the plan of v has. The order never leaves a lane without its
// programs:
//
//  1. the leak guard on the uplinks,
//  2. tunnel devices that are missing, without peers,
//  3. programs on all tunnel devices,
//  4. the forwarding table,
//  5. routes, rules and masquerade,
//  6. the peers, by which packets begin to flow,
//  7. removal of pins of devices that are gone.
//
// A step that fails ends it; all steps are idempotent, and the next pass begins at
// the first.
func (l *Loop) build(ctx context.Context, v *View, host host) ([]string, error) {
	plan := v.Plan
	uplinks, err := l.guardUplinks(host, v.Self.Addresses)
	if err != nil {
		return nil, err
	}
	if staged, missing := withoutNewPeers(plan, host); missing {
		if err := l.Lanes.Apply(ctx, staged); err != nil {
			return uplinks, fmt.Errorf("make lanes: %w", err)
		}
		if host.links, err = l.Links.Links(); err != nil { // with the new devices
			return uplinks, err
		}
	}
	index, err := l.attachLanes(plan, host)
	if err != nil {
		return uplinks, err
	}
	if err := l.Datapath.SyncForwards(forwards(plan, index)); err != nil {
		return uplinks, err
	}
	if err := l.applyHost(ctx, plan); err != nil {
		return uplinks, err
	}
	if err := l.Lanes.Apply(ctx, plan); err != nil {
		return uplinks, fmt.Errorf("apply lanes: %w", err)
	}
	return uplinks, l.Datapath.Keep(host.names())
}

// applyHost does not wait for a program that hangs: the loop would see no revocation.
func (l *Loop) applyHost(ctx context.Context, plan overlay.Plan) error {
	ctx, cancel := context.WithTimeout(ctx, l.hostTime)
	defer cancel()
	if err := l.Host.Apply(ctx, plan); err != nil {
		return fmt.Errorf("apply routes: %w", err)
	}
	return nil
}

// withoutNewPeers returns the plan with no peers on the devices that are not there
// yet, and whether there is such a device.
func withoutNewPeers(plan overlay.Plan, host host) (staged overlay.Plan, missing bool) {
	plan.Tunnels = slices.Clone(plan.Tunnels)
	for i, lane := range plan.Tunnels {
		if _, there := host.link(lane.Device); !there {
			missing = true
			plan.Tunnels[i].Peers = nil
		}
	}
	return plan, missing
}

// attachLanes puts the programs on all tunnel devices, and returns their indices by name.
func (l *Loop) attachLanes(plan overlay.Plan, host host) (map[string]int, error) {
	index := map[string]int{}
	for _, lane := range plan.Tunnels {
		link, there := host.link(lane.Device)
		if !there {
			return nil, fmt.Errorf("find lane: device %s: %w", lane.Device, nl.ErrNotFound)
		}
		index[lane.Device] = link.Index
		if err := l.Datapath.AttachTunnel(bpf.Device{Index: link.Index, Name: lane.Device}, encapsulation(plan.Kind)); err != nil {
			return nil, err
		}
	}
	return index, nil
}

func encapsulation(k overlay.Kind) bpf.Encapsulation {
	if k == overlay.VXLAN {
		return bpf.L2
	}
	return bpf.L3
}

// forwards returns the plan's forwarding table as the data path has it.
func forwards(plan overlay.Plan, index map[string]int) []bpf.Forward {
	var all []bpf.Forward
	for _, f := range plan.Forward {
		all = append(all, bpf.Forward{
			Prefix: f.Prefix, Kind: f.Kind, Index: index[f.Device],
			Encapsulation: encapsulation(plan.Kind), Remote: f.Remote,
		})
	}
	return all
}
