// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package observe shows what a node's data path decides, and why.
//
// The data path reports the addresses of flows; an Observer knows whose they
// are, which policies were asked, and whether the way to the other node is
// encrypted. A Hub hands the flows to everybody who watches, and has the data
// path report nothing while nobody does. Explain answers for one connection
// what the tables say, as they are in the kernel.
//
// Serve and Client are the two ends of a socket of the node, which root alone
// may open: what passes there names pods and policies of the whole cluster.
package observe
