// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package enforce brings NetworkPolicies and Services into a node's data path.
//
// An Enforcer learns which objects of the API have changed, tells the policy
// compiler, and writes the difference. What changes while one difference is written
// becomes the next one. It knows the addresses of this node's pods from those who
// connect them, and not from the API: a pod that is being connected waits here until
// its endpoint policy is in place.
//
// What is not known is denied. An address of a pod without an endpoint policy lets
// nothing in or out, and it has none
//   - until the API has shown the pod, its namespace, and all policies;
//   - when the pod of an earlier daemon is no longer in the API, since nothing
//     says which policies would select it;
//   - when another pod has taken its name.
//
// A pod that disappears from the API before its device does keeps its endpoint
// policy: its last labels stay in force on this node until the device is gone. While
// the API server is away, everything stays as it was, except that a pod that was not
// seen before cannot be connected.
package enforce
