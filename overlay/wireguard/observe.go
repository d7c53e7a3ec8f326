// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package wireguard

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/backend"
)

// errConnRefused is the error of a connection to a socket file on which nobody listens.
const errConnRefused = unix.ECONNREFUSED

// configSockets are the files that configure WireGuard in user space.
const configSockets = "/var/run/wireguard/" + devicePrefix + "*.sock"

// Observe reads the tunnels. A tunnel that nothing serves at the moment has no key.
func (b *Backend) Observe() ([]overlay.TunnelState, error) {
	links, err := b.devices()
	if err != nil {
		return nil, err
	}
	var out []overlay.TunnelState
	var errs []error
	for _, l := range links {
		s := laneState(l)
		switch dev, err := b.ctl.Device(l.Name); {
		case err == nil:
			s.fill(dev)
		case !isGone(err):
			errs = append(errs, fmt.Errorf("read lane %s: %w", l.Name, err))
		}
		out = append(out, s.TunnelState)
	}
	slices.SortFunc(out, func(a, b overlay.TunnelState) int { return strings.Compare(a.Device, b.Device) })
	return out, errors.Join(errs...)
}

type state struct{ overlay.TunnelState }

func laneState(l nl.Link) *state {
	s := &state{overlay.TunnelState{
		Device: l.Name, Index: l.Index, Kind: overlay.WireGuard, Backend: backend.Kernel,
		MTU: l.MTU, Up: l.Up, Encrypted: true,
	}}
	if l.Kind != kernelKind {
		s.Backend = backend.UserSpace
	}
	return s
}

func (s *state) fill(dev *wgtypes.Device) {
	if dev.PrivateKey != (wgtypes.Key{}) {
		s.Key = keymgr.PublicKey(dev.PublicKey)
	}
	s.Port = uint16(dev.ListenPort)
	for _, p := range dev.Peers {
		allowed := prefixes(p.AllowedIPs)
		slices.SortFunc(allowed, func(x, y netip.Prefix) int { return x.Compare(y) })
		s.Peers = append(s.Peers, overlay.PeerState{
			Key: keymgr.PublicKey(p.PublicKey), Endpoint: addrPort(p.Endpoint), AllowedIPs: allowed,
			Preshared: p.PresharedKey != (wgtypes.Key{}), Initiates: p.PersistentKeepaliveInterval != 0,
			LastHandshake: p.LastHandshakeTime, Received: uint64(p.ReceiveBytes), Sent: uint64(p.TransmitBytes),
		})
	}
	slices.SortFunc(s.Peers, func(a, b overlay.PeerState) int { return strings.Compare(a.Key.String(), b.Key.String()) })
}

// removeSockets removes configuration sockets that a process left behind.
func removeSockets() error {
	files, err := filepath.Glob(configSockets)
	errs := []error{err}
	for _, f := range files {
		if err := os.Remove(f); !errors.Is(err, os.ErrNotExist) {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}
