// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package enforce brings NetworkPolicies and Services into a node's data path.
//
// An Enforcer hears which objects of the API changed, tells the policy compiler,
// and writes the difference: all that changed while the last difference was
// written is one next difference. It also knows which addresses this node's pods
// have, from those who connect them and not from the API: a pod that is being
// connected waits here until its guard is in place.
//
// What is not known denies. A pod's address without a guard lets nothing in or
// out, and has none
//   - until the API has shown the pod, its namespace, and all policies;
//   - when the pod of an earlier daemon is not in the API any more, for nothing
//     tells which policies would select it;
//   - when another pod has taken its name.
//
// A pod that goes from the API before its device does keeps its guard: the last
// state of its labels stays in force on this node until the device is gone. And
// while the API server is away, everything stays as it was, except that no pod
// can be connected that was not seen before.
package enforce
