// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import "errors"

var (
	// errLinks says that the kernel's notifications have ended.
	errLinks = errors.New("the kernel no longer notifies this daemon of devices")
	// errNoPodCIDR is a cluster that gives its nodes no pod ranges.
	errNoPodCIDR = errors.New("spec.podCIDRs is empty: kube-controller-manager must run with --allocate-node-cidrs and --cluster-cidr")
)
