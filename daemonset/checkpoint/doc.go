// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package checkpoint lets a node's daemon start while the API server is away: it keeps
// on disk the small part of the cluster's state that is stored nowhere else.
//
// A State holds this node's own Node object, the cluster's pod ranges, and the nodes
// that package keymgr has no record of. Everything else has its place already:
// statements, sequence marks and the revocation list are in keymgr's records; keys,
// certificate and roots are in the identity. A Store combines the two into what the API
// server last said. The result is trusted no more than the API server is: each
// statement passes keymgr's Verify again, and the same rules refuse whatever has
// expired or was revoked in the meantime.
//
// A daemon that started this way keeps asking, and follows the API server as soon as
// it answers. If the node has been given another identity in the meantime, the daemon
// must start again.
package checkpoint
