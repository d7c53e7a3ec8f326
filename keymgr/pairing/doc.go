// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package pairing lets two nodes agree on a secret that only they know and that a quantum
// computer cannot find in recorded traffic: the preshared key for a pair of WireGuard
// keys.
//
// One connection yields one key. It is mutual TLS 1.3 with the nodes' certificates, and
// X25519MLKEM768 (FIPS 203 with X25519) is the only key agreement, so nobody can negotiate
// it down. Each node says which two WireGuard keys the secret is for, and the secret is
// what TLS exports (RFC 8446, 7.5; RFC 9266 for the idea) for exactly these two messages.
// The server prepares its side before it answers, so the client may start a handshake at
// once.
//
// A request names its purpose, and each purpose has an exporter label of its own, so the
// same exchange can yield keys for other protocols later.
package pairing
