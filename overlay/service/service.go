// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package service

import (
	"net/netip"
	"time"
)

// Frontend is what a pod asks for: one port of one cluster address.
type Frontend struct {
	Address  netip.AddrPort
	Protocol uint8 // as in the IP header: 6 TCP, 17 UDP, 132 SCTP
}

// Service is who answers at a [Frontend].
type Service struct {
	Backends []netip.AddrPort // at least one, in order, none twice
	Affinity time.Duration    // a client keeps its backend as long as it does not pause for longer; 0: no affinity
}
