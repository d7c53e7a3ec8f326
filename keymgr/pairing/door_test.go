// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package pairing

import (
	"errors"
	"net"
	"net/netip"
	"testing"

	"github.com/sealane/sealane/keymgr/keytest"
)

// silent opens a connection from an address and says nothing.
func silent(t *testing.T, to netip.AddrPort, from string) {
	t.Helper()
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.DialContext(t.Context(), "tcp", to.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
}

// TestSilenceKeepsNobodyOut: connections that say nothing, as many as one likes, from the
// very address of a peer or from many others, do not keep the peer's agent from pairing.
func TestSilenceKeepsNobodyOut(t *testing.T) {
	_, a, b := couple(t)
	for name, from := range map[string]func(i int) string{
		"the peer's address": func(int) string { return home.String() },
		"many addresses":     func(i int) string { return netip.AddrFrom4([4]byte{127, 1, byte(i >> 8), byte(i)}).String() },
	} {
		server := serve(t, b, nil)
		for i := range maxKnown + maxStrangers {
			silent(t, server.addr, from(i))
		}
		for range 3 {
			if _, err := Exchange(t.Context(), a.identity(), server.addr, subject(a, b)); err != nil {
				t.Errorf("%s: the agent: %v (%s)", name, err, Reason(err))
			}
		}
	}
}

// TestStrangersAreFew: addresses that are no node's get a few handshakes, so that a node
// that has just joined is heard, and no more, which costs no handshake.
func TestStrangersAreFew(t *testing.T) {
	_, a, b := couple(t)
	stranger := a.identity()
	stranger.Address = func(netip.Addr) netip.Addr { return netip.MustParseAddr("127.0.0.2") }
	server := serve(t, b, nil)
	if _, err := Exchange(t.Context(), stranger, server.addr, subject(a, b)); err != nil {
		t.Fatalf("the first handshake of a stranger: %v", err)
	}
	for refused := false; !refused; {
		silent(t, server.addr, "127.0.0.3")
		select {
		case err := <-server.failed:
			refused = errors.Is(err, ErrStranger) && Reason(err) == "stranger"
		default:
		}
	}
	if _, err := Exchange(t.Context(), a.identity(), server.addr, subject(a, b)); err != nil {
		t.Errorf("a node that is known: %v", err)
	}
}

// TestShareOfAPeer: once its end is known, a connection counts against that node and no
// longer against its address.
func TestShareOfAPeer(t *testing.T) {
	d := newDoor(func(netip.Addr) bool { return true })
	enter := func() *visit {
		t.Helper()
		c, other := net.Pipe()
		t.Cleanup(func() { c.Close(); other.Close() })
		v, err := d.admit(c, home)
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
	var visits []*visit
	for _, name := range []string{"a", "b", "c", "d", "e"} {
		for range maxPerPeer {
			v := enter()
			if err := v.introduce(keytest.ID(name)); err != nil {
				t.Fatalf("node %s behind the same address: %v", name, err)
			}
			visits = append(visits, v)
		}
	}
	over := enter()
	if err := over.introduce(keytest.ID("a")); !errors.Is(err, ErrCrowded) || Reason(err) != "crowded" {
		t.Errorf("error %v, want ErrCrowded", err)
	}
	over.leave()
	visits[0].leave()
	if err := enter().introduce(keytest.ID("a")); err != nil {
		t.Errorf("a place that was left stays taken: %v", err)
	}
	for _, v := range visits[1:] {
		v.leave()
	}
	if len(d.peers) != 1 || d.peers[keytest.ID("a")] != 1 {
		t.Errorf("left over: %v", d.peers)
	}
}
