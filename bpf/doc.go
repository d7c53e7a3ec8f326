// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package bpf is the data path: eBPF programs on pods' devices, on tunnels and on uplinks,
// and the maps that they share. It is the only package that imports cilium/ebpf.
//
// The programs (folder src, one file per attachment point) decide for each packet between
// the short way (pod to pod, pod to lane, lane to pod), the host's stack, and a drop with a
// numbered [Reason]. Programs, maps and links are pinned in a bpffs: while the daemon is
// away, or is being replaced, packets continue as before.
//
// docs/design/datapath.md describes the pipeline and the maps.
package bpf
