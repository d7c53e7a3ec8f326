// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package picture lets a node's daemon start while the API server is away: it keeps
// on disk the little of the cluster that is kept nowhere else.
//
// A Picture holds this node's own Node object, the pod ranges of the cluster, and
// those nodes that package keymgr has no record of. All the rest is in its place
// already: statements, sequence marks and the revocation list in keymgr's records,
// keys, certificate and roots in the identity. Of the two, a Keeper puts together
// what the API server last said. That is not trusted more than the API server is:
// each statement goes through keymgr's Verify again, and what has expired or was
// revoked meanwhile is refused by the same rules.
//
// A daemon that started so goes on asking, and follows the API server as soon as it
// answers; unless it has been given another identity meanwhile, with which it must
// start anew.
package checkpoint
