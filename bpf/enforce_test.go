// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/sealane/sealane/policy"
)

// Numbers in the tables of these tests.
const (
	setIn, setOut     policy.SetID   = 11, 12
	theClient, theEnd policy.PeerID  = 31, 32
	someBlock         policy.PeerID  = 41
	echoPort          policy.PortsID = 21
)

// allowed are tables in which the client may open connections to the server's
// port 7, and the two may do nothing else: not even the server with the client.
func allowed(client, server []netip.Addr) policy.Tables {
	t := isolated(client, server)
	t.Rules[policy.Rule{Set: setIn, Peer: theClient}] = echoPort
	t.Rules[policy.Rule{Set: setOut, Peer: theEnd}] = echoPort
	t.Ports = map[policy.PortsID][]policy.Ports{echoPort: {{Protocol: protoTCP, First: 7, Last: 7}, {Protocol: protoUDP, First: 7, Last: 7}}}
	return t
}

// isolated isolates both and allows nothing.
func isolated(client, server []netip.Addr) policy.Tables {
	t := policy.Tables{
		Identities: map[netip.Addr]policy.PeerID{}, Endpoints: map[netip.Addr]policy.EndpointPolicy{},
		Sets: map[policy.SetID]policy.Set{setIn: {}, setOut: {}, policy.Closed: {}}, Rules: map[policy.Rule]policy.PortsID{},
	}
	for _, a := range client {
		t.Identities[a] = theClient
		t.Endpoints[a] = policy.EndpointPolicy{Egress: setOut, DryRunEgress: setOut, Ingress: policy.Closed, DryRunIngress: policy.Closed}
	}
	for _, a := range server {
		t.Identities[a] = theEnd
		t.Endpoints[a] = policy.EndpointPolicy{Ingress: setIn, DryRunIngress: setIn, Egress: policy.Closed, DryRunEgress: policy.Closed}
	}
	return t
}

// policed is a client and two servers, beside it and on another node.
type policed struct {
	a, b   *node
	client *pod
	server map[string]*pod
}

func newPoliced(t *testing.T) policed {
	t.Helper()
	a, b := pair(t)
	s := policed{a: a, b: b, client: a.pod(2), server: map[string]*pod{"local": a.pod(3), "remote": b.pod(2)}}
	for _, p := range s.server {
		for i := range families {
			serve(t, p.NS, port(p.addrs[i], 7))
			serve(t, p.NS, port(p.addrs[i], 8))
		}
	}
	return s
}

// guard gives both nodes the same tables; each keeps the guards of its own pods.
func (s policed) guard(t *testing.T, tables policy.Tables) {
	t.Helper()
	guard(t, s.a, tables)
	guard(t, s.b, tables)
}

func (s policed) each(t *testing.T, f func(t *testing.T, client, server []netip.Addr, to netip.Addr)) {
	t.Helper()
	each(t, func(t *testing.T, i int, _ family) {
		for name, p := range s.server {
			t.Run(name, func(t *testing.T) { f(t, s.client.addrs, p.addrs, p.addrs[i]) })
		}
	})
}

// drops counts what policy has dropped on both nodes.
func (s policed) drops(t *testing.T) uint64 {
	t.Helper()
	var n uint64
	for _, d := range []*Datapath{s.a.d, s.b.d} {
		c, err := d.Counters()
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range []Reason{ReasonPolicyEgress, ReasonPolicyIngress, ReasonPolicyPeer} {
			n += c.Drops[r].Packets
		}
	}
	return n
}

// awaitDropped waits until policy has dropped a packet more than before.
func (s policed) awaitDropped(t *testing.T, before uint64) {
	t.Helper()
	for until := time.Now().Add(patience); s.drops(t) == before; runtime.Gosched() {
		if time.Now().After(until) {
			t.Fatal("policy drops nothing")
		}
	}
}

// TestPrivilegedDenyIsSilent: what is not allowed meets silence, so that it comes
// through as soon as it is.
func TestPrivilegedDenyIsSilent(t *testing.T) {
	s := newPoliced(t)
	s.each(t, func(t *testing.T, client, server []netip.Addr, to netip.Addr) {
		s.guard(t, isolated(client, server))
		udp := dial(t, s.client.NS, "udp", port(to, 7))
		before := s.drops(t)
		if _, err := udp.Write([]byte("nobody hears this")); err != nil {
			t.Fatal(err)
		}
		s.awaitDropped(t, before)
		before = s.drops(t)
		dialled := make(chan error, 1)
		go func() {
			dialled <- s.client.Handle().Do(func() error {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				c, err := new(net.Dialer).DialContext(ctx, "tcp", port(to, 7).String())
				if err != nil {
					return err
				}
				return c.Close()
			})
		}()
		s.awaitDropped(t, before)
		s.guard(t, allowed(client, server))
		if err := <-dialled; err != nil {
			t.Errorf("when it is allowed, the SYN that is sent again comes to nothing: %v", err)
		}
		exchange(t, udp, 100)
		exchange(t, udp, 5000)
		echoTCP(t, s.client.NS, port(to, 7), large)
		// Another port, in whole packets and in fragments.
		other := dial(t, s.client.NS, "udp", port(to, 8))
		for _, size := range []int{100, 5000} {
			before = s.drops(t)
			if _, err := other.Write(payload(size)); err != nil {
				t.Fatal(err)
			}
			s.awaitDropped(t, before)
		}
		unheard(t, other)
	})
}

// unheard wants that nothing comes, in as long as an answer takes many times over.
func unheard(t *testing.T, c net.Conn) {
	t.Helper()
	if err := c.SetReadDeadline(time.Now().Add(100 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(make([]byte, 1<<16)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("read %d bytes (%v), want silence", n, err)
	}
	if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
}

// TestPrivilegedPolicyCuts: what was begun when it was allowed ends with that, in
// both directions, and goes on when it is allowed again.
func TestPrivilegedPolicyCuts(t *testing.T) {
	s := newPoliced(t)
	s.each(t, func(t *testing.T, client, server []netip.Addr, to netip.Addr) {
		s.guard(t, allowed(client, server))
		for _, network := range []string{"udp", "tcp"} {
			c := dial(t, s.client.NS, network, port(to, 7))
			exchange(t, c, 100)
			cuts := []policy.Tables{isolated(client, server), onlyIn(client, server), onlyOut(client, server)}
			if network == "tcp" {
				cuts = cuts[1:2] // TCP is slow to try again
			}
			for _, tables := range cuts {
				s.guard(t, tables)
				before := s.drops(t)
				if _, err := c.Write(payload(100)); err != nil {
					t.Fatal(err)
				}
				s.awaitDropped(t, before)
				unheard(t, c)
				s.guard(t, allowed(client, server))
				if network == "udp" {
					exchange(t, c, 100)
					continue
				}
				got := make([]byte, 100)
				for n := 0; n < len(got); {
					more, err := c.Read(got[n:])
					if err != nil {
						t.Fatalf("what was sent again did not come: %v", err)
					}
					n += more
				}
				exchange(t, c, 100)
			}
		}
	})
}

// onlyIn has the server's side of it allowed, and not the client's.
func onlyIn(client, server []netip.Addr) policy.Tables {
	t := allowed(client, server)
	delete(t.Rules, policy.Rule{Set: setOut, Peer: theEnd})
	return t
}

func onlyOut(client, server []netip.Addr) policy.Tables {
	t := allowed(client, server)
	delete(t.Rules, policy.Rule{Set: setIn, Peer: theClient})
	return t
}

// TestPrivilegedNodesPassPolicy: the own node is always let in and reached, which
// the kubelet's probes rely on; other nodes are by ipBlock only.
func TestPrivilegedNodesPassPolicy(t *testing.T) {
	a, b := pair(t)
	hostnet(a, b)
	p := a.pod(2)
	each(t, func(t *testing.T, i int, f family) {
		own, other := f.nodeAddr(1), f.nodeAddr(2)
		serve(t, p.NS, port(p.addrs[i], 7))
		serve(t, a.NS, port(own, 7))
		serve(t, b.NS, port(other, 7))
		tables := policy.Tables{
			Endpoints: map[netip.Addr]policy.EndpointPolicy{p.addrs[i]: {Egress: setOut, Ingress: setIn, DryRunEgress: setOut, DryRunIngress: setIn}},
			Sets:      map[policy.SetID]policy.Set{setIn: {}, setOut: {}},
		}
		guard(t, a, tables)
		wantDrops(t, counted(t, a.d, func() {
			echoTCP(t, a.NS, port(p.addrs[i], 7), large)
			echoUDP(t, a.NS, port(p.addrs[i], 7), 100, 5000)
			echoTCP(t, p.NS, port(own, 7), large)
			echoUDP(t, p.NS, port(own, 7), 100, 5000)
		}))
		awaitDrop(t, a.d, ReasonPolicyEgress, func() { sendUDP(t, p.NS, port(p.addrs[i], 0), port(other, 7), "no") })
		awaitDrop(t, a.d, ReasonPolicyIngress, func() { sendUDP(t, b.NS, port(other, 0), port(p.addrs[i], 7), "no") })
		tables.Blocks = map[netip.Prefix]policy.PeerID{single(other): someBlock}
		tables.Rules = map[policy.Rule]policy.PortsID{{Set: setIn, Peer: someBlock}: policy.AllPorts, {Set: setOut, Peer: someBlock}: policy.AllPorts}
		guard(t, a, tables)
		wantDrops(t, counted(t, a.d, func() {
			echoTCP(t, b.NS, port(p.addrs[i], 7), large)
			echoUDP(t, b.NS, port(p.addrs[i], 7), 100, 5000)
			echoTCP(t, p.NS, port(other, 7), large)
			echoUDP(t, p.NS, port(other, 7), 100, 5000)
		}))
	})
}
