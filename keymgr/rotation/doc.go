// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package rotation decides how a node's WireGuard keys follow each other without
// a lost packet. It does no input or output: the caller tells Machine.Step what is on
// disk, what is published and what the kernel shows, and Step returns what should be
// installed, published and removed now.
//
// A node has one key generation, or two while it rotates, and so has each peer. Each
// combination of a generation of this node and one of the peer is a [Pair] that packets
// can use, and all pairs can be live at once. Rotation is make before break:
//
//	own side:  Steady -> Keyed (next key on disk, its devices up) -> Published
//	           (statement lists both) -> Retiring (statement lists the next only)
//	           -> Steady (the old key is removed)
//	per peer:  unknown -> paired (preshared key agreed) -> proving -> live ->
//	           active -> draining -> removed
//
// A node can receive on a pair before it tells anybody about the key. It sends on a new
// pair only after a handshake has proved that the pair works. It withdraws a key only
// when every peer that is alive has proved the next key and nothing arrives with the old
// one any more. Each of two nodes moves by itself, and either may be late.
//
// Machine remembers little between steps, and could do without: a daemon that restarts
// continues from the disk and the kernel.
package rotation
