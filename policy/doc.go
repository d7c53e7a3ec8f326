// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package policy knows what networking.k8s.io/v1 NetworkPolicies mean.
//
// [Parse] makes a [Policy] of one: whom it selects, and which peers and ports its
// rules are about. [Tables] are the flat form that the data path looks up packet
// by packet. Package compile turns the one into the other; package oracle is the
// same knowledge written down a second time.
//
// Nothing here watches an API or touches a kernel.
package policy
