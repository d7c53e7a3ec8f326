// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package hostnet makes the host's own network follow a plan: routes to the
// pods of other nodes, refusals where there is no lane, the rules that send
// pods' packets to remote nodes into their lane, masquerade, and the kernel
// settings without which a node forwards nothing. It is the only package that
// imports knftables.
//
// What eBPF forwards never comes here. Here is what goes by the stack: the
// host's own packets, and flows that netfilter translates.
package hostnet
