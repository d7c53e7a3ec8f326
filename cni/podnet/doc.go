// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package podnet creates and removes the network device of one pod: a veth pair whose inner
// end has host addresses (/32, /128) and a default route through a link-local next hop,
// which is the outer end. There is no bridge, and no ARP or neighbour discovery: every
// neighbour entry is permanent.
//
// Connect is all or nothing, and may be called again at any time: it keeps what is right
// and replaces what is not. If a daemon is killed while it creates a device, the retry
// replaces what it left, or Disconnect removes it: the host's end is created first, and
// everything else is deleted with it.
package podnet
