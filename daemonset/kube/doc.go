// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package kube is Sealane's door to the Kubernetes API: only this package and those below
// it import client-go. Outward it speaks plain values: netip addresses, keymgr's
// statements.
//
// Watching is level-triggered: a watcher signals that something changed and hands out what
// there is now, so that no consumer handles single events, deletions seen late, or resyncs.
// Package cluster does so in snapshots of what all nodes agree on, package objects one by
// one for objects of which there are too many for snapshots. Writing is idempotent and uses
// the API server's resource versions, so that two writers never overwrite each other unseen.
package kube
