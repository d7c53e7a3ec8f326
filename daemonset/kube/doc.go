// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package kube is Sealane's door to the Kubernetes API: the only package that
// imports client-go. Outward it speaks plain values (netip addresses, keymgr's
// statements); only what has a package of its own that knows what it means,
// NetworkPolicies and Services, goes out as the API object, trimmed.
//
// Watching is level-triggered: a Watcher says that something changed and hands
// out complete snapshots, so that no consumer handles single events, deletions
// seen late, or resyncs. Objects, of which there are too many for that, says
// which ones changed and hands out the present state of each. Writing is idempotent and uses the API server's
// resource versions, so that two writers never overwrite each other unseen.
package kube
