// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package overlay decides what one node needs to reach the pods and nodes of the others
// through lanes: tunnels (the devices that carry lanes), their peers, routes, rules, the
// forwarding table of the data path and what is masqueraded.
//
// Compute is a pure function from the node's configuration and its verified peers to a
// Plan. A Plan is a sorted value: two Plans of the same cluster are equal whatever the
// order of the input, and String returns the text that tests, logs and the command line
// show. The packages below this one carry a Plan out: overlay/wireguard and overlay/vxlan
// the tunnels, overlay/hostnet the rest.
//
// Everything fails closed. Behind each route into a lane stands an unreachable route with a
// higher metric, so packets for a missing lane are refused and never take the default route
// in the clear. A peer whose data contradict another node's has no lane at all, and
// Plan.Refused says why.
package overlay
