// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package podnet makes and removes the network device of one pod: a veth pair
// whose inner end has host addresses (/32, /128) and a default route through a
// link-local next hop that is the outer end. There is no bridge, and nothing is
// ever asked by ARP or neighbour discovery: every neighbour is written down.
//
// Connect is all or nothing, and may be called again at any time: it keeps what is
// right and replaces what is not. What a daemon has half made when it is killed is
// replaced by the retry, or removed by Disconnect, as the host's end is made first
// and everything else goes with it.
package podnet
