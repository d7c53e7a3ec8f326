// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"context"
	"net/netip"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay/backend"
)

// Backend makes the tunnels of a Plan exist. Apply may be called any number of times and
// changes nothing when all is as planned.
type Backend interface {
	// Apply creates the planned tunnels with their peers and deletes all others.
	Apply(ctx context.Context, p Plan) error
	// Remove takes peers, by the names of tunnels, off these tunnels, and touches nothing
	// else. It needs no plan and nothing of what Apply needs, so that it works where Apply
	// fails. A tunnel that is not there has no peers.
	Remove(peers map[string][]keymgr.PublicKey) error
	// Observe reads the tunnels from the kernel.
	Observe() ([]TunnelState, error)
	// Clean removes every trace of the backend; it needs no Plan.
	Clean() error
}

// TunnelState is a tunnel device as the kernel has it.
type TunnelState struct {
	Device    string
	Index     int
	Kind      Kind
	Backend   backend.Type
	Key       keymgr.PublicKey // this node's public key on the device; zero for VXLAN
	Port      uint16
	MTU       int // bytes
	Up        bool
	Encrypted bool
	Peers     []PeerState
}

// PeerState is one peer of a tunnel device as the kernel has it.
type PeerState struct {
	Key           keymgr.PublicKey
	Endpoint      netip.AddrPort
	AllowedIPs    []netip.Prefix
	Preshared     bool      // a preshared key is set
	Initiates     bool      // this node keeps the session alive (persistent keepalive is on)
	LastHandshake time.Time // zero before the first handshake
	Received      uint64    // bytes
	Sent          uint64    // bytes
}
