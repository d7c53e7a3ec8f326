// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package vxlan

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/backend"
)

const (
	kind  = "vxlan" // the kernel's name for it
	alias = "sealane lane, NOT encrypted, managed by sealaned"
)

// ErrKind refuses a plan for lanes of another kind.
var ErrKind = errors.New("not a plan for vxlan lanes")

// Backend makes the VXLAN tunnel of one network namespace.
type Backend struct {
	links *nl.Handle
}

var _ overlay.Backend = (*Backend)(nil)

// New returns a Backend. It changes nothing and does not take ownership of the handle.
func New(links *nl.Handle) *Backend { return &Backend{links: links} }

// Apply makes the device exist as planned. It replaces a device that has the name but is
// something else.
func (b *Backend) Apply(_ context.Context, p overlay.Plan) error {
	if p.Kind != overlay.VXLAN {
		return fmt.Errorf("apply plan of kind %q: %w", p.Kind, ErrKind)
	}
	for _, lane := range p.Tunnels {
		if err := b.ensure(lane, p); err != nil {
			return fmt.Errorf("lane %s: %w", lane.Device, err)
		}
	}
	return nil
}

func (b *Backend) ensure(lane overlay.Tunnel, p overlay.Plan) error {
	l, err := b.links.LinkByName(lane.Device)
	if err == nil && (l.Kind != kind || !bytes.Equal(l.MAC, overlay.VXLANMAC())) {
		err = errors.Join(nl.ErrNotFound, b.links.DeleteLink(lane.Device))
	}
	if errors.Is(err, nl.ErrNotFound) {
		err = b.links.AddVXLAN(nl.VXLAN{Name: lane.Device, MAC: overlay.VXLANMAC(), MTU: p.MTU, Port: lane.Port})
	}
	if err != nil {
		return err
	}
	_, err = b.links.EnsureTunnel(lane.Device, nl.Tunnel{
		MTU: p.MTU, Alias: alias, Group: overlay.DeviceGroup, Addresses: p.Addresses,
	})
	return err
}

// Remove has nothing to do: the device has no peers.
func (b *Backend) Remove(map[string][]keymgr.PublicKey) error { return nil }

// Observe reads the device. It reports no peers: only the data path knows them.
func (b *Backend) Observe() ([]overlay.TunnelState, error) {
	l, err := b.links.LinkByName(overlay.VXLANDevice)
	if errors.Is(err, nl.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return []overlay.TunnelState{{
		Device: l.Name, Index: l.Index, Kind: overlay.VXLAN, Backend: backend.Kernel, Port: overlay.VXLANPort, MTU: l.MTU, Up: l.Up,
	}}, nil
}

// Clean removes the device.
func (b *Backend) Clean() error { return b.links.DeleteLink(overlay.VXLANDevice) }
