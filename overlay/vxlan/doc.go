// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package vxlan makes the VXLAN tunnel of a plan. Its packets are not encrypted;
// overlay.Compute makes such a plan only where the operator explicitly asked for it.
//
// The device is controlled externally: for each packet the data path names the outer
// destination and the VXLAN network identifier, and it checks both on incoming packets. So
// the device has no peers of its own, and needs no configuration when nodes come and go.
package vxlan
