// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package cni is the border between the container runtime and the node daemon.
//
// The runtime executes the plugin binary, whose whole behaviour is Plugin in this package:
// it turns the environment and the network configuration into one Request, sends it to the
// daemon over a unix socket, and prints the Response. On the other side Serve turns each
// Request into a call of a Handler. One connection carries one request and one response,
// both JSON; killing a plugin closes its connection, which cancels the call.
//
// A Queue on disk keeps each DEL that finds no daemon. At its start the daemon calls
// Listen, then Queue.Drain, then Serve, in this order: a plugin that has queued a request
// checks once more whether a daemon listens, so that no request is lost between draining
// and serving.
//
// The package speaks CNI 0.3.1, 0.4.0, 1.0.0 and 1.1.0
// (https://github.com/containernetworking/cni/blob/main/SPEC.md). It links
// neither client-go nor eBPF, because the plugin binary must start in
// milliseconds.
package cni
