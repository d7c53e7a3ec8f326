// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package cluster follows and changes what all nodes have to agree on: which nodes there
// are, the statements that they publish in NodeKeys, the trust bundle, the orders to revoke
// nodes and the list that carries them out.
//
// A Watcher signals that something changed, and hands out complete snapshots. A Client asks
// the API server itself, and writes.
package cluster
