// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package agent is the node daemon: it wires the packages below it together.
//
// Three loops share the work. daemonset/trust keeps this node's certificate and its
// published key statement fresh. daemonset/network turns what the API server says,
// after verification, into one plan and applies it: lanes, routes, masquerade, eBPF.
// daemonset/podserver answers the CNI plugin. None of them undoes anything when the
// daemon ends: packets go on without it.
package agent
