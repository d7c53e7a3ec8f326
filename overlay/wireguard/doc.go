// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package wireguard makes the WireGuard tunnels of a plan, in the kernel if it has
// WireGuard, else through the sealane-wireguard process. It is the only package that uses
// wgctrl, which drives both in the same way.
//
// It reads the present state, compares it with the plan and writes only the difference.
// Three rules keep sessions alive while things change:
//
//   - A device never gets another private key. One with the wrong key is deleted and created again.
//   - A peer whose key stays is never removed and added again; its endpoint and its
//     allowed addresses change in place.
//   - Allowed addresses are never cleared to be set again. An address moves from one
//     peer to another in one step; one that nobody may have any more moves to a peer
//     that does not exist, and leaves with it.
//
// Handshakes are started by one node of each pair, by switching the persistent
// keepalive on: both the kernel and the user-space implementation then send at once.
// The other node has no keepalive and never starts spontaneously; a packet that it
// has to send starts a handshake all the same, as WireGuard does.
package wireguard
