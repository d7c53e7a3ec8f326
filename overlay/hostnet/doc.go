// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package hostnet makes the host's own network follow a plan: routes to the pods of other
// nodes, unreachable routes where there is no lane, the rules that send pods' packets for
// remote nodes into their lane, masquerade, and the kernel settings that a node needs to
// forward packets. It is the only package that imports knftables.
//
// Packets that eBPF forwards never come here. This package serves what passes the kernel's
// network stack: the host's own packets, and flows that netfilter translates.
package hostnet
