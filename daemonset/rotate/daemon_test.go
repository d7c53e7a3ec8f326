// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/hostnet"
	"github.com/sealane/sealane/overlay/wireguard"
)

const testPort = 51875 // of pairing

// settings are what a daemon is started with.
type settings struct {
	Dir, Socket string
	Period      time.Duration // of rotation
	Self        keymgr.LiveNode
	Nodes       []keymgr.LiveNode
}

// news is what the cluster tells a daemon, as a line of JSON.
type news struct {
	Keys    map[string]keymgr.Signed // by node name
	Request cluster.RotationRequest
	// Die kills the daemon in a state: before it has made a decision true, or after.
	Die   rotation.State
	After bool
}

// report is what a daemon tells, as a line of JSON.
type report struct {
	Signed   keymgr.Signed
	State    rotation.State
	Keys     []rotation.Key
	Waiting  []string
	Overdue  bool
	Active   map[string]rotation.Pair // live ones only
	Fallback []string
	Pairings []status.Pairing
	Error    string
}

func (r report) newest() rotation.Key {
	if len(r.Keys) == 0 {
		return rotation.Key{}
	}
	return r.Keys[len(r.Keys)-1]
}

// daemon is the part of the node daemon that has to do with keys and lanes, with
// news from a pipe. It can be killed at any time, like the real one.
type daemon struct {
	settings
	identity *identity.Identity
	verifier *keymgr.Verifier
	rotator  *Rotator
	links    *nl.Handle
	lanes    *wireguard.Backend
	host     *hostnet.Host
	accepted map[string]keymgr.Peer // by UID
	applied  overlay.Plan
	out      *json.Encoder
	told     string

	fresh chan struct{} // there are news
	mu    sync.Mutex    // guards news
	news  news
}

// nobody is told of Events.
type nobody struct{}

func (nobody) Event(context.Context, kube.EventSpec) {}

func newDaemon(s settings, log *slog.Logger) (*daemon, error) {
	d := &daemon{settings: s, accepted: map[string]keymgr.Peer{}, out: json.NewEncoder(os.Stdout), fresh: make(chan struct{}, 1)}
	var err error
	if d.identity, err = identity.Open(identity.Config{Dir: s.Dir, Node: s.Self.ID, TrustDomain: keytest.TrustDomain}); err != nil {
		return nil, err
	}
	marks := markstore.New(filepath.Join(s.Dir, "peers"))
	if d.verifier, err = keymgr.NewVerifier(keymgr.VerifierConfig{TrustDomain: keytest.TrustDomain, Self: s.Self.ID, Marks: marks, PSK: keymgr.PSKRequired}); err != nil {
		return nil, err
	}
	bundle, err := d.identity.Bundle()
	if err == nil {
		err = d.verifier.SetRoots(bundle)
	}
	if err != nil {
		return nil, err
	}
	d.rotator, err = New(Config{
		Identity: d.identity, Authenticate: d.verifier.Authenticate, Period: s.Period, Mode: keymgr.PSKRequired, Events: nobody{}, Logger: log,
	})
	if err != nil {
		return nil, err
	}
	return d, d.openHost(log)
}

func (d *daemon) openHost(log *slog.Logger) (err error) {
	if d.links, err = nl.Open(); err != nil {
		return err
	}
	if d.host, err = hostnet.New(d.links, log); err != nil {
		return err
	}
	d.lanes, err = wireguard.New(wireguard.Options{
		Links: d.links, Key: d.private, Preshared: d.rotator.Preshared, Socket: d.Socket, Logger: log,
	})
	return err
}

func (d *daemon) private(generation uint64) (keymgr.PrivateKey, bool) {
	for _, k := range d.identity.WGKeys().All() {
		if k.Generation == generation {
			return k.Private, true
		}
	}
	return keymgr.PrivateKey{}, false
}

// runDaemon runs until its standard input ends.
func runDaemon(ctx context.Context, text string, log *slog.Logger) error {
	var s settings
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		return err
	}
	d, err := newDaemon(s, log)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	go func() { cancel(d.read(os.Stdin)) }()
	go func() { cancel(d.rotator.Serve(ctx, testPort)) }()
	d.run(ctx, log)
	if err := context.Cause(ctx); !errors.Is(err, io.EOF) {
		return err
	}
	return nil
}

func (d *daemon) read(r io.Reader) error {
	in := json.NewDecoder(bufio.NewReader(r))
	for {
		var n news
		if err := in.Decode(&n); err != nil {
			return err
		}
		d.mu.Lock()
		d.news = n
		d.mu.Unlock()
		select {
		case d.fresh <- struct{}{}:
		default:
		}
	}
}

// run is the agent's network loop.
func (d *daemon) run(ctx context.Context, log *slog.Logger) {
	restarted := d.lanes.Watch(ctx)
	timer := time.NewTimer(time.Hour)
	failed := false
	for {
		light := false
		select {
		case <-ctx.Done():
			return
		case <-d.fresh:
		case <-restarted:
		case <-d.rotator.Changed():
			light = true
		case e := <-d.rotator.Results():
			d.rotator.Take(e)
			light = true
		case <-timer.C:
			changed, next := d.glance(ctx)
			if !changed && !failed {
				d.report(nil)
				timer.Reset(next)
				continue
			}
			light = !failed
		}
		if !d.informed() {
			continue // as the agent does before the first lists have come
		}
		next, err := d.pass(ctx, light)
		if failed = err != nil; failed {
			log.Error("pass failed", "error", err)
			next = time.Second
		}
		d.report(err)
		timer.Reset(next)
	}
}

// informed tells whether the cluster has said anything yet.
func (d *daemon) informed() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.news.Keys != nil
}

func (d *daemon) glance(ctx context.Context) (bool, time.Duration) {
	lanes, err := d.lanes.Observe()
	if err != nil {
		return true, 0
	}
	return d.rotator.Poll(ctx, lanes)
}

func (d *daemon) pass(ctx context.Context, light bool) (time.Duration, error) {
	d.mu.Lock()
	n := d.news
	d.mu.Unlock()
	pass := d.rotator.Begin()
	lanes, err := d.lanes.Observe()
	if err != nil {
		return 0, err
	}
	peers, refused := d.judge(n)
	decided, err := pass.Step(ctx, Scene{Published: n.Keys[d.Self.ID.Name], Request: n.Request, Peers: peers, Addresses: d.Self.Addresses}, lanes)
	if err != nil {
		return 0, err
	}
	if decided.State == n.Die && !n.After {
		return 0, unix.Kill(unix.Getpid(), unix.SIGKILL)
	}
	if err := d.follow(ctx, peers, decided, light); err != nil {
		return 0, err
	}
	next := decided.Next
	if pass.Commit() {
		next = 0
	}
	if err := d.sign(decided); err != nil {
		return 0, err
	}
	if decided.State == n.Die {
		return 0, unix.Kill(unix.Getpid(), unix.SIGKILL)
	}
	return next, refused
}

// judge verifies what the others say; what is refused leaves in force what was
// accepted before.
func (d *daemon) judge(n news) (peers []Peer, err error) {
	var own []keymgr.PublicKey
	for _, k := range d.identity.WGKeys().All() {
		own = append(own, k.Public)
	}
	d.verifier.SetSelf(own, d.Self)
	for _, live := range d.Nodes {
		signed, ok := n.Keys[live.ID.Name]
		if !ok || live.ID == d.Self.ID {
			continue
		}
		p, refused := d.verifier.Verify(signed, live)
		if refused == nil {
			d.accepted[live.ID.UID] = p
		}
		err = errors.Join(err, refused)
		if p, ok := d.accepted[live.ID.UID]; ok {
			peers = append(peers, Peer{Peer: p, Addr: p.Endpoints[0]})
		}
	}
	return peers, err
}

// follow makes lanes and routes as decided, in the agent's order.
func (d *daemon) follow(ctx context.Context, peers []Peer, decided rotation.Decision, light bool) error {
	cfg := overlay.Config{
		Kind: overlay.WireGuard, Self: d.Self.ID, Addresses: d.Self.Addresses, PodCIDRs: d.Self.PodCIDRs, UnderlayMTU: 1500,
	}
	for _, k := range d.identity.WGKeys().All() {
		cfg.Generations = append(cfg.Generations, k.Generation)
	}
	var others []overlay.Peer
	for _, p := range peers {
		pair := decided.Peers[p.ID.UID]
		others = append(others, overlay.Peer{
			ID: p.ID, Keys: p.Peer.Keys, Withdrawn: p.Peer.Withdrawn, Pairs: pair.Install, Active: pair.Active,
			Endpoint: p.Addr, Addresses: p.Endpoints, PodCIDRs: p.PodCIDRs,
		})
	}
	plan, err := overlay.Compute(cfg, others)
	if err != nil {
		return err
	}
	if !light || !plan.EqualButPeers(d.applied) {
		err = d.prepare(ctx, plan)
	}
	if err == nil {
		err = d.lanes.Apply(ctx, plan)
	}
	if d.applied = plan; err != nil {
		d.applied = overlay.Plan{}
	}
	return err
}

// prepare makes devices that are missing, without peers, and routes.
func (d *daemon) prepare(ctx context.Context, plan overlay.Plan) error {
	staged := plan
	staged.Tunnels = slices.Clone(plan.Tunnels)
	missing := false
	for i, l := range staged.Tunnels {
		if _, err := d.links.LinkByName(l.Device); err != nil {
			staged.Tunnels[i].Peers, missing = nil, true
		}
	}
	if missing {
		if err := d.lanes.Apply(ctx, staged); err != nil {
			return fmt.Errorf("make lanes: %w", err)
		}
	}
	return d.host.Apply(ctx, plan)
}

// sign says in a statement what is decided, if the last one says something else.
func (d *daemon) sign(decided rotation.Decision) error {
	in := identity.StatementInput{
		RevokedGens: decided.Revoke, BasePort: overlay.DefaultBasePort, Endpoints: d.Self.Addresses, PodCIDRs: d.Self.PodCIDRs,
		PSK: keymgr.PSKRequired, PSKPort: testPort,
	}
	for _, k := range d.identity.WGKeys().All() {
		if slices.Contains(decided.Publish, k.Generation) {
			in.Keys = append(in.Keys, k)
		}
	}
	if d.identity.NeedsStatement(in) == "" {
		return nil
	}
	_, err := d.identity.Sign(in)
	return err
}

// report tells how it stands, if that is new.
func (d *daemon) report(err error) {
	var r report
	r.Signed, _ = d.identity.Last()
	r.Pairings = d.rotator.Pairings()
	r.Keys = d.rotator.own(keymgr.Signed{}).Keys
	if s := d.rotator.Shown(); s != nil {
		r.State, r.Waiting, r.Overdue, r.Active = s.Decision.State, s.Decision.Waiting, s.Decision.Overdue, map[string]rotation.Pair{}
		for uid, p := range s.Decision.Peers {
			if p.Live {
				r.Active[uid] = p.Active
			}
			if p.Fallback {
				r.Fallback = append(r.Fallback, uid)
			}
		}
	}
	if err != nil {
		r.Error = err.Error()
	}
	text, _ := json.Marshal(r)
	if string(text) == d.told {
		return
	}
	d.told = string(text)
	_ = d.out.Encode(r) // nobody listens any more: standard input has ended too
}
