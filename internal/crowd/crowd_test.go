// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package crowd

import (
	"net/netip"
	"testing"
)

// fakeConn remembers that it was closed.
type fakeConn struct{ closed bool }

func (c *fakeConn) Close() error {
	c.closed = true
	return nil
}

func address(last byte) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, last}) }

// enter lets one more connection in, or fails.
func enter(t *testing.T, c *Crowd, from byte) (*fakeConn, *Guest) {
	t.Helper()
	conn := &fakeConn{}
	g, ok := c.Enter(conn, address(from))
	if !ok {
		t.Fatalf("a connection of %s was refused", address(from))
	}
	return conn, g
}

func TestShareOfAnAddress(t *testing.T) {
	c := New(Limits{All: 100, PerAddress: 2})
	first, g := enter(t, c, 1)
	g.SetBusy(true)
	second, g := enter(t, c, 1)
	other, _ := enter(t, c, 2)
	enter(t, c, 1)
	if !second.closed || first.closed || other.closed {
		t.Error("the idle connection of the same address did not make room")
	}
	g.Leave() // too late: it must not free the place of another
	if n := c.from[address(1)]; n != 2 || len(c.guests) != 3 {
		t.Errorf("%d of the address, %d in all", n, len(c.guests))
	}
	for _, g := range c.guests {
		g.SetBusy(true)
	}
	enter(t, c, 1)
	if !first.closed {
		t.Error("with all busy, the oldest of the address did not make room")
	}
}

// TestNobodyKeepsOthersOut: whoever comes with one connection gets in, whoever has many
// makes room, and only when all are busy with one each does the newcomer wait.
func TestNobodyKeepsOthersOut(t *testing.T) {
	c := New(Limits{All: 6, PerAddress: 4})
	var greedy []*fakeConn
	for range 4 {
		conn, g := enter(t, c, 1)
		g.SetBusy(true)
		greedy = append(greedy, conn)
	}
	fair, g := enter(t, c, 2)
	g.SetBusy(true)
	enter(t, c, 3)
	enter(t, c, 4)
	if !greedy[0].closed || greedy[1].closed || fair.closed {
		t.Error("the address with most connections did not make room")
	}

	c = New(Limits{All: 3, PerAddress: 4})
	idle, _ := enter(t, c, 1)
	for i := range byte(2) {
		_, g := enter(t, c, 2+i)
		g.SetBusy(true)
	}
	_, g = enter(t, c, 4)
	if !idle.closed {
		t.Error("an idle connection did not make room")
	}
	g.SetBusy(true)
	late := &fakeConn{}
	if _, ok := c.Enter(late, address(5)); ok || late.closed {
		t.Error("a connection that is being served was given up")
	}
	g.Leave()
	g.Leave()
	enter(t, c, 5)
	if len(c.guests) != 3 || len(c.from) != 3 {
		t.Errorf("%d connections of %d addresses", len(c.guests), len(c.from))
	}
}
