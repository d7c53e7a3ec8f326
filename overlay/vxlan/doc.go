// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package vxlan makes the one VXLAN lane of a plan true. Its packets are not
// encrypted; overlay.Compute makes such a plan only where an operator asked for it
// in so many words.
//
// The device is controlled from outside: for each packet the data path names the
// outer destination and the VXLAN network identifier, and checks both on what
// comes in. So the device has no peers of its own, and nothing to configure when
// nodes come and go.
package vxlan
