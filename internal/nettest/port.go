// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nettest

import (
	"net"
	"net/netip"
	"testing"
)

// FreePort returns a TCP port on which nothing listens in the caller's namespace.
func FreePort(t testing.TB) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = l.Close() }()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}
