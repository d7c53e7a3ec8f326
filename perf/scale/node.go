// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"encoding/json"
	"slices"
	"time"

	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/perf/scale/internal/sim"
	"github.com/sealane/sealane/perf/scale/internal/wire"
)

const (
	resync    = 30 * time.Second // of the agent
	maxAsking = 32               // of the agent
	refused   = 5 * time.Second  // until an exchange with a node that is down fails
)

// costs is what an observed node has spent, by what it was spent on.
type costs struct {
	Decode, Verify, Observe, Decide, Plan, Exchange, Start time.Duration

	passes, glances, exchanges, failures int
}

func (c costs) sum() time.Duration {
	return c.Decode + c.Verify + c.Observe + c.Decide + c.Plan + c.Exchange + c.Start
}

// node is an observed node: everything that its agent computes is computed.
type node struct {
	*author
	w        *world
	identity *identity.Identity
	verifier *keymgr.Verifier
	marks    marks
	machine  *rotation.Machine
	boot     time.Time
	asked    time.Time // by the operator

	inbox  [][]byte // watch events not decoded yet, with
	from   []int    // whose they are
	have   []keymgr.Signed
	peers  []keymgr.Peer // by author
	kernel kernel
	paired []map[rotation.Pair]rotation.Pairing // by author
	shown  keymgr.Signed                        // this node's statement as the API server has it
	ready  uint64
	last   rotation.Decision
	plan   overlay.Plan

	busy          time.Time
	wakes, timers int
	pending       bool
	passed        time.Time
	asking        int
	results       []result
	backlog       []question

	since   []time.Time // by author: when what is awaited began
	spent   costs
	arrived []time.Duration
	began   time.Time // of a rotation
	took    []time.Duration
}

type question struct {
	to   int
	slot rotation.Pair
}

type result struct {
	uid string
	ok  bool
}

// marks is a MarkStore that keeps what would be in files.
type marks map[string][]byte

func (m marks) Load() ([]keymgr.Record, error) {
	var all []keymgr.Record
	for _, data := range m {
		var r keymgr.Record
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, err
		}
		all = append(all, r)
	}
	return all, nil
}

func (m marks) Save(r keymgr.Record) (err error) {
	m[r.ID.UID], err = json.Marshal(r)
	return err
}

func (m marks) Delete(uid string) error {
	delete(m, uid)
	return nil
}

// start is the daemon's: it has the marks and no more.
func (n *node) start() (err error) {
	n.verifier, err = keymgr.NewVerifier(keymgr.VerifierConfig{
		TrustDomain: trustDomain, Self: n.live.ID, Marks: n.marks, Clock: n.w.clock.Now, Grace: keymgr.DefaultGrace, PSK: keymgr.PSKRequired,
	})
	if err != nil {
		return err
	}
	if err := n.verifier.SetRoots(n.w.registry.authority.Bundle()); err != nil {
		return err
	}
	if len(n.marks) > 0 {
		if _, err := n.verifier.Restore(); err != nil {
			return err
		}
	}
	n.machine = rotation.New(rotation.Config{Self: n.live.ID.UID, Times: rotation.TimesFor(rotation.DefaultPeriod)})
	return nil
}

// receive is the watch's.
func (n *node) receive(a *author) {
	n.inbox, n.from = append(n.inbox, a.line), append(n.from, a.index)
	if a == n.author {
		n.shown = a.signed
	}
	n.wake()
}

// wake asks for a pass as soon as the one under way is over.
func (n *node) wake() {
	if n.pending || !n.up {
		return
	}
	n.pending = true
	n.wakes++
	mine := n.wakes
	at := n.busy
	if n.w.clock.Now().After(at) {
		at = n.w.clock.Now()
	}
	n.w.clock.At(at, func() {
		if n.wakes == mine && n.pending {
			n.pass()
		}
	})
}

func (n *node) pass() {
	n.pending = false
	before := n.spent.sum()
	n.spent.passes++
	n.take()
	sim.Measure(&n.spent.Decode, n.read)
	sim.Measure(&n.spent.Verify, n.verify)
	var lanes []overlay.TunnelState
	sim.Measure(&n.spent.Observe, func() { lanes = n.kernel.observe(n) })
	asks := map[string]rotation.Pair{}
	var d rotation.Decision
	for again := true; again; {
		sim.Measure(&n.spent.Decide, func() { d = n.machine.Step(n.input(lanes)) })
		for uid, p := range d.Peers {
			if p.Exchange != nil {
				asks[uid] = *p.Exchange
			}
		}
		again = n.own(d)
	}
	sim.Measure(&n.spent.Plan, func() { n.compute(d) })
	n.last, n.passed = d, n.w.clock.Now()
	n.busy = n.w.clock.Now().Add(n.spent.sum() - before)
	n.w.clock.At(n.busy, func() { n.apply(d, asks) })
	n.timer(min(d.Next, resync))
}

// take tells the machine the results of the exchanges that have ended.
func (n *node) take() {
	for _, r := range n.results {
		n.machine.Exchanged(r.uid, r.ok, n.w.clock.Now())
	}
	n.results = nil
}

// timer looks at the kernel after a while, as the agent does between passes, or at once
// when an exchange has ended, since most exchanges need no pass.
func (n *node) timer(d time.Duration) {
	n.timers++
	mine := n.timers
	n.w.clock.At(n.busy.Add(max(d, 0)), func() {
		if n.timers == mine && !n.pending && n.up {
			n.glance()
		}
	})
}

func (n *node) glance() {
	left := resync - n.w.clock.Now().Sub(n.passed)
	if left <= 0 {
		n.wake()
		return
	}
	n.take()
	before := n.spent.sum()
	n.spent.glances++
	var d rotation.Decision
	changed := false
	var lanes []overlay.TunnelState
	sim.Measure(&n.spent.Observe, func() { lanes = n.kernel.observe(n) })
	sim.Measure(&n.spent.Decide, func() {
		d = n.machine.Step(n.input(lanes))
		changed = d.Create != "" || d.Remove != 0 || !same(d, n.last)
	})
	asks := map[string]rotation.Pair{}
	for uid, p := range d.Peers {
		if p.Exchange != nil {
			asks[uid] = *p.Exchange
		}
	}
	n.busy = n.w.clock.Now().Add(n.spent.sum() - before)
	n.w.clock.At(n.busy, func() { n.ask(asks) })
	if changed {
		n.wake()
		return
	}
	n.timer(min(d.Next, left))
}

func same(a, b rotation.Decision) bool {
	if a.State != b.State || !slices.Equal(a.Publish, b.Publish) || len(a.Peers) != len(b.Peers) {
		return false
	}
	for uid, p := range a.Peers {
		if q, ok := b.Peers[uid]; !ok || p.Active != q.Active || !slices.Equal(p.Install, q.Install) {
			return false
		}
	}
	return true
}

func (n *node) read() {
	for i, line := range n.inbox {
		s, err := wire.Decode(line)
		if err != nil {
			n.w.fail(err)
		}
		n.have[n.from[i]] = s
	}
	n.inbox, n.from = nil, nil
}

func (n *node) verify() {
	for i, a := range n.w.authors {
		if a == n.author {
			continue
		}
		p, err := n.verifier.Verify(n.have[i], a.live)
		if err != nil {
			n.w.fail(err)
			continue
		}
		n.peers[i] = p
	}
}

// input puts together what the machine is told, as the agent does.
func (n *node) input(lanes []overlay.TunnelState) rotation.Input {
	own := n.identity.WGKeys().All()
	in := rotation.Input{Now: n.w.clock.Now(), Ready: n.ready, Boot: n.boot, Requested: n.asked}
	since := map[uint64]time.Time{}
	if last, ok := n.identity.Last(); ok {
		if s, err := keymgr.ParseStatement(last.Payload); err == nil {
			for _, k := range s.Keys {
				since[k.Generation] = k.NotBefore.Truncate(time.Second)
				in.Own.Signed = append(in.Own.Signed, k.Generation)
			}
		}
		if last.Equal(n.shown) {
			in.Own.Announced = in.Own.Signed
		}
	}
	for _, k := range own {
		key := rotation.Key{Generation: k.Generation, Since: k.Created.Truncate(time.Second)}
		if at, ok := since[k.Generation]; ok {
			key.Since = at
		}
		in.Own.Keys = append(in.Own.Keys, key)
	}
	index := rotate.NewPaths(own, lanes)
	for i, p := range n.peers {
		if len(p.Keys) > 0 {
			in.Peers = append(in.Peers, n.peer(i, p, index))
		}
	}
	return in
}

func (n *node) peer(i int, p keymgr.Peer, index rotate.Paths) rotation.Peer {
	out := rotation.Peer{UID: p.ID.UID, Secrecy: rotation.Required, Paired: map[rotation.Pair]rotation.Pairing{}}
	for s, x := range n.paired[i] {
		out.Paired[s] = x
	}
	for _, k := range p.AllKeys() {
		out.Keys = append(out.Keys, rotation.Key{
			Generation: k.Generation(), Since: k.Since(), Withdrawn: !slices.ContainsFunc(p.Keys, k.Equal),
		})
		for _, s := range index[k.Key()] {
			out.Paths = append(out.Paths, rotation.Path{
				Pair: rotation.Pair{Own: s.Own, Peer: k.Generation()}, Handshake: s.Peer.LastHandshake,
				Received: s.Peer.Received, Sent: s.Peer.Sent, Preshared: s.Peer.Preshared, Initiates: s.Peer.Initiates,
			})
		}
	}
	return out
}

// own makes and removes keys, and reports whether to decide again.
func (n *node) own(d rotation.Decision) bool {
	switch {
	case d.Create != "":
		_, err := n.identity.WGKeys().Create()
		n.w.fail(err)
		n.began = n.w.clock.Now()
	case d.Remove != 0:
		n.w.fail(n.identity.WGKeys().Remove(d.Remove))
		n.took = append(n.took, n.w.clock.Now().Sub(n.began))
	default:
		return false
	}
	return true
}

func (n *node) generations() []uint64 {
	var out []uint64
	for _, k := range n.identity.WGKeys().All() {
		out = append(out, k.Generation)
	}
	return out
}

func (n *node) compute(d rotation.Decision) {
	cfg := overlay.Config{
		Kind: overlay.WireGuard, Self: n.live.ID, Addresses: n.live.Addresses, PodCIDRs: n.live.PodCIDRs,
		ClusterCIDRs: clusterCIDRs(), UnderlayMTU: 1500, Generations: n.generations(),
	}
	var peers []overlay.Peer
	for i, p := range n.peers {
		if len(p.Keys) == 0 {
			continue
		}
		pair := d.Peers[p.ID.UID]
		peers = append(peers, overlay.Peer{
			ID: p.ID, Keys: p.Keys, Withdrawn: p.Withdrawn, Endpoint: p.Endpoints[0], PodCIDRs: p.PodCIDRs, Addresses: n.w.authors[i].live.Addresses,
			Pairs: pair.Install, Active: pair.Active,
		})
	}
	plan, err := overlay.Compute(cfg, peers)
	n.w.fail(err)
	plan.Equal(n.plan) // as the agent asks
	n.plan = plan
}

// apply makes a decision true in the kernel.
func (n *node) apply(d rotation.Decision, asks map[string]rotation.Pair) {
	if !n.up {
		return
	}
	for i, a := range n.w.authors {
		if pair, ok := d.Peers[a.live.ID.UID]; ok {
			n.kernel.install(n, i, pair)
			n.arrive(i, pair)
		}
	}
	if newest := slices.Max(n.generations()); n.ready != newest {
		n.ready = newest
		n.wake()
	}
	n.ask(asks)
	n.publish(d.Publish)
}

// arrive notes how long something took that is awaited of a pair.
func (n *node) arrive(i int, p rotation.PeerDecision) {
	if !n.since[i].IsZero() && n.w.goal(n, i, p) {
		n.arrived = append(n.arrived, n.w.clock.Now().Sub(n.since[i]))
		n.since[i] = time.Time{}
	}
}

func (n *node) publish(list []uint64) {
	in := identity.StatementInput{
		BasePort: overlay.DefaultBasePort, Endpoints: n.live.Addresses, PodCIDRs: n.live.PodCIDRs, PSK: keymgr.PSKRequired, PSKPort: 51875,
	}
	for _, k := range n.identity.WGKeys().All() {
		if slices.Contains(list, k.Generation) {
			in.Keys = append(in.Keys, k)
		}
	}
	if len(in.Keys) == 0 || n.identity.NeedsStatement(in) == "" {
		return
	}
	s, err := n.identity.Sign(in)
	n.w.fail(err)
	n.w.fail(n.say(s, n.w.clock.Now()))
	n.w.announce(n.author)
}
