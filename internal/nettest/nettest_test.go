// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nettest

import (
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/sealane/sealane/internal/nl"
)

func TestPrivilegedNamespaceIsGoneAfterTheTest(t *testing.T) {
	Privileged(t)
	var path string
	t.Run("use", func(t *testing.T) {
		ns := NewNS(t)
		path = ns.Path
		var inside bool
		var err error
		ns.Do(func() { inside, err = ns.Current() })
		if err != nil || !inside {
			t.Errorf("Do ran outside of the namespace (%v)", err)
		}
		if inside, err = ns.Current(); err != nil || inside {
			t.Errorf("the test's own thread is in the namespace (%v)", err)
		}
		if out := ns.Run("ip", "-o", "link"); strings.Count(out, "\n") != 1 {
			t.Errorf("a new namespace has more than its loopback:\n%s", out)
		}
	})
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("namespace left behind: %v", err)
	}
	if _, err := nl.OpenAt(path); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("OpenAt of a removed namespace = %v, want ErrNotFound", err)
	}
}

func TestPrivilegedWireCarriesBothFamilies(t *testing.T) {
	Privileged(t)
	a, b := NewNS(t), NewNS(t)
	Wire(t,
		End{NS: a, Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.1/24"), netip.MustParsePrefix("2001:db8::1/64")}},
		End{NS: b, Name: "far", Addresses: []netip.Prefix{netip.MustParsePrefix("192.0.2.2/24"), netip.MustParsePrefix("2001:db8::2/64")}})
	for _, addr := range []string{"192.0.2.2:7", "[2001:db8::2]:7"} {
		var ln net.Listener
		var err error
		b.Do(func() { ln, err = net.Listen("tcp", addr) })
		if err != nil {
			t.Fatal(err)
		}
		a.Do(func() {
			var c net.Conn
			if c, err = net.Dial("tcp", addr); err == nil {
				err = c.Close()
			}
		})
		if err := errors.Join(err, ln.Close()); err != nil {
			t.Errorf("%s: %v", addr, err)
		}
	}
}

func TestPrivilegedIsolate(t *testing.T) {
	Privileged(t)
	dir := t.TempDir()
	a, b := NewNS(t), NewNS(t)
	for _, ns := range []*NS{a, b} {
		ns.Isolate(dir)
		var err error
		ns.Do(func() { err = os.WriteFile(dir+"/name", []byte(ns.Name), 0o600) })
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, ns := range []*NS{a, b} {
		if got := ns.Run("cat", dir+"/name"); got != ns.Name {
			t.Errorf("%s sees the file of %q", ns.Name, got)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("seen from outside: %v, %v", left, err)
	}
}
