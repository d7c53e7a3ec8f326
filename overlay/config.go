// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
)

// Config is what Compute needs to know about this node.
type Config struct {
	Kind           Kind
	AllowPlaintext bool // flag --insecure-plaintext: a lane kind without encryption is acceptable
	Self           keymgr.NodeID
	// Generations are this node's WireGuard key generations in use: one, or two consecutive
	// ones while the node rotates.
	Generations []uint64
	// Addresses are this node's addresses as the cluster knows them (InternalIP), the
	// primary one first.
	Addresses []netip.Addr
	PodCIDRs  []netip.Prefix // of this node, all families
	// ClusterCIDRs are the ranges from which all pods of the cluster get their addresses.
	// Empty means unknown.
	ClusterCIDRs []netip.Prefix
	// Reserved are the ranges of Services and the API server's addresses, which no pod
	// range of a peer may overlap. Empty means unknown.
	Reserved    []netip.Prefix
	BasePort    uint16 // first of four UDP ports; 0 means DefaultBasePort
	UnderlayMTU int    // bytes; of the device that carries the outer packets
	MTU         int    // bytes; inside the lanes; 0 means the most that UnderlayMTU allows
	Ports       Ports  // Compute fills in those of the tunnels
}

// Peer is another node. Without a pair of keys (or, for VXLAN, without an endpoint) it is
// known but has no lane: packets to its addresses are refused instead of sent in the clear.
type Peer struct {
	ID   keymgr.NodeID
	Keys []keymgr.PeerKey // one or two, of different parity
	// Withdrawn are keys that the peer's statement no longer lists and that tunnels may
	// still use. Their parity differs from that of Keys.
	Withdrawn []keymgr.PeerKey
	// Pairs are the pairs of key generations to install, most preferred first.
	Pairs []rotation.WantedPair
	// Active is the pair that carries traffic. If Pairs does not contain it, the first of
	// Pairs carries traffic.
	Active    rotation.Pair
	Endpoint  netip.Addr   // outer address of its lanes
	Addresses []netip.Addr // its own, and nobody else's
	PodCIDRs  []netip.Prefix
	// Created is when its Node was created. Of two peers that claim the same, the older
	// one keeps it.
	Created time.Time
}

// normalize checks the configuration and returns it sorted, with its defaults.
func (c Config) normalize() (Config, error) {
	checks := []func() error{c.checkKind, c.checkAddresses, c.checkPrefixes}
	for _, check := range checks {
		if err := check(); err != nil {
			return Config{}, err
		}
	}
	if c.BasePort == 0 {
		c.BasePort = DefaultBasePort
	}
	if c.BasePort > 65535-3 {
		return Config{}, fmt.Errorf("%w: base port %d: four ports from it on must exist, choose 65532 or less", ErrConfig, c.BasePort)
	}
	c.Generations = sorted(c.Generations, cmp.Compare)
	c.PodCIDRs = sorted(c.PodCIDRs, netip.Prefix.Compare)
	c.ClusterCIDRs = sorted(c.ClusterCIDRs, netip.Prefix.Compare)
	return c, nil
}

func (c Config) checkKind() error {
	if err := c.Self.Validate(); err != nil {
		return fmt.Errorf("%w: self: %w", ErrConfig, err)
	}
	switch c.Kind {
	case VXLAN:
		if !c.AllowPlaintext {
			return ErrPlaintext
		}
		return nil
	case WireGuard:
		return c.checkGenerations()
	}
	return fmt.Errorf("%w: kind %q: choose %s or %s", ErrConfig, c.Kind, WireGuard, VXLAN)
}

func (c Config) checkGenerations() error {
	g := sorted(c.Generations, cmp.Compare)
	if len(g) == 1 || len(g) == 2 && g[1] == g[0]+1 {
		return nil
	}
	return fmt.Errorf("%w: key generations %v: want one, or two consecutive ones", ErrConfig, c.Generations)
}

func (c Config) checkAddresses() error {
	if len(c.Addresses) == 0 {
		return fmt.Errorf("%w: this node has no address: it needs an InternalIP", ErrConfig)
	}
	for i, a := range c.Addresses {
		if err := checkUnicast(a); err != nil {
			return fmt.Errorf("%w: address of this node: %w", ErrConfig, err)
		}
		if slices.Contains(c.Addresses[:i], a) {
			return fmt.Errorf("%w: address of this node %s is listed twice", ErrConfig, a)
		}
		if p, ok := containing(slices.Concat(c.PodCIDRs, c.ClusterCIDRs), a); ok {
			return fmt.Errorf("%w: address of this node %s lies in the pod range %s: choose other pod ranges", ErrConfig, a, p)
		}
	}
	return nil
}

func (c Config) checkPrefixes() error {
	for i, p := range c.PodCIDRs {
		if err := checkPrefix(p); err != nil {
			return fmt.Errorf("%w: pod range of this node: %w", ErrConfig, err)
		}
		if o, ok := overlapping(c.PodCIDRs[:i], p); ok {
			return fmt.Errorf("%w: pod ranges of this node %s and %s overlap", ErrConfig, o, p)
		}
	}
	for _, p := range c.ClusterCIDRs {
		if err := checkPrefix(p); err != nil {
			return fmt.Errorf("%w: pod range of the cluster: %w", ErrConfig, err)
		}
	}
	return nil
}

// sourceFor returns this node's address that the host uses as source towards addresses of
// a's family.
func (c Config) sourceFor(a netip.Addr) netip.Addr {
	for _, own := range c.Addresses {
		if own.Is4() == a.Is4() {
			return own
		}
	}
	return netip.Addr{}
}
