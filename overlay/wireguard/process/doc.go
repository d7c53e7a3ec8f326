// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package process is the small protocol between the node daemon and the process that runs
// WireGuard in user space, where the kernel has none.
//
// That process has a life of its own, so that neither a restart nor an upgrade of the
// daemon affects a lane. The daemon asks it over a unix socket to create or delete devices,
// with one JSON request and one JSON response per connection. Keys and peers use
// WireGuard's own configuration protocol and never pass through this one.
package process
