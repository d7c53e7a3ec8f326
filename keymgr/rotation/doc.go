// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package rotation decides how a node's WireGuard keys follow each other without
// a lost packet. It does no I/O: Machine.Step is told what is on disk, what is
// published and what the kernel shows, and answers what should be so now.
//
// A node has one key generation, or two while it rotates, and so has each peer.
// Every combination of an own and a peer's generation is a lane of its own, a
// [Slot], and all of them can be live at once. Rotation is make before break:
//
//	own side:  Steady -> Keyed (next key on disk, its devices up) -> Published
//	           (statement lists both) -> Retiring (statement lists the next only)
//	           -> Steady (the old key is removed)
//	per peer:  unknown -> paired (preshared key agreed) -> proving -> live ->
//	           active -> draining -> removed
//
// What a node receives on is ready before anybody is told of it; it sends by a new
// slot only once a handshake has proved that; it withdraws a key only when every
// peer that is alive has proved the next one and nothing arrives by the old one
// any more. Each end of a pair moves by itself, and either end may be late.
//
// Little is remembered between steps, and nothing of it is needed: a daemon that
// starts anew goes on from the disk and the kernel.
package rotation
