// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package userspace runs WireGuard devices in this process, for nodes whose kernel has
// none. It is golang.zx2c4.com/wireguard as upstream runs it, with its segmentation
// offloads, and with WireGuard's own configuration sockets in /var/run/wireguard, so that
// programs that configure the devices see no difference from the kernel's.
//
// The TUN devices are persistent: they outlive the process, with their index, addresses,
// routes and eBPF programs. While no process serves them they drop what is sent to them,
// and no packet takes another way. The next process attaches to them again; keys and peers,
// which were only in memory, must be set again.
package userspace
