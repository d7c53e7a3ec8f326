// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package policycmd holds "sealane monitor" and "sealane policy": what NetworkPolicies
// decide, live and for one connection.
package policycmd
