// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"fmt"
	"net/netip"
	"slices"
)

// Bytes that a lane adds to each packet: outer IP, UDP and its own headers.
const (
	overheadWireGuard = 60 // over IPv4: 20 + 8 + 32
	overheadVXLAN     = 50 // over IPv4: 20 + 8 + 8 + 14
	overheadIPv6      = 20 // in addition, if the outer header is IPv6
)

// The smallest MTU that a family allows, in bytes.
const (
	minMTU4 = 576  // RFC 791: what every host must accept in one piece
	minMTU6 = 1280 // RFC 8200, section 5; Linux disables IPv6 on a device with less
)

// TunnelMTU returns how many bytes a tunnel of kind k carries over an underlay of that MTU;
// outer6 says that outer packets are IPv6.
func TunnelMTU(k Kind, underlay int, outer6 bool) int {
	overhead := overheadWireGuard
	if k == VXLAN {
		overhead = overheadVXLAN
	}
	if outer6 {
		overhead += overheadIPv6
	}
	return underlay - overhead
}

// tunnelMTU chooses or checks the MTU of all tunnels. All share one value, because a pod
// has one device and cannot know which peer it will talk to.
func (c Config) tunnelMTU(peers []Peer) (int, error) {
	outer6 := c.Addresses[0].Is6() || slices.ContainsFunc(peers, func(p Peer) bool { return p.Endpoint.Is6() })
	least := minMTU4
	if slices.ContainsFunc(c.PodCIDRs, func(p netip.Prefix) bool { return p.Addr().Is6() }) {
		least = minMTU6
	}
	most, mtu := TunnelMTU(c.Kind, c.UnderlayMTU, outer6), c.MTU
	if mtu == 0 {
		if mtu = most; mtu < least {
			return 0, fmt.Errorf("%w: the underlay's MTU of %d leaves %d bytes inside the lanes, at least %d are needed: raise it",
				ErrConfig, c.UnderlayMTU, most, least)
		}
		return mtu, nil
	}
	if mtu < least || mtu > most {
		return 0, fmt.Errorf("%w: mtu %d: choose %d to %d (the underlay's %d less the lane's headers), or 0 for the most",
			ErrConfig, mtu, least, most, c.UnderlayMTU)
	}
	return mtu, nil
}
