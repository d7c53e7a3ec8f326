// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package overlay decides what one node needs to reach the pods and nodes of the
// others through lanes: tunnels (the devices that carry lanes), their peers, routes, rules, the forwarding
// table of the data path and what is masqueraded.
//
// Compute is a pure function from the node's configuration and its verified peers
// to a Plan. A Plan is a sorted value: two Plans of the same cluster are equal
// whatever order their input had, and String gives the text that tests, logs and
// the command line show. The packages below this one make a Plan true:
// overlay/wireguard and overlay/vxlan the lanes, overlay/hostnet the rest.
//
// Everything fails closed. Behind each route into a lane stands an unreachable
// route of a higher metric, so a lane that is not there refuses packets; they never
// take the default route in the clear. A peer whose data contradict another's has
// no lane at all, and Plan.Refused says why.
package overlay
