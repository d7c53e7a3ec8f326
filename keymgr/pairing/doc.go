// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package pairing lets two nodes agree on a secret that only they know and that no
// quantum computer finds in recorded traffic: the preshared key of a WireGuard
// lane.
//
// One connection makes one key. It is mutual TLS 1.3 with the nodes' certificates
// and with X25519MLKEM768 as the only key agreement (FIPS 203 with X25519), so that
// there is nothing to be talked down to. Each end says which two WireGuard keys it
// is about, and the secret is what TLS exports (RFC 8446, 7.5; RFC 9266 for the
// idea) for exactly these two messages. The server makes its side ready before it
// answers, so that the client may begin with a handshake at once.
//
// A request names its purpose, and each purpose has an exporter label of its own:
// keys for other protocols, one per direction, can be had in the same way later.
package pairing
