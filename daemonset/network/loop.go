// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package network turns what the API server says, after verification, into one plan
// for this host and applies it: lanes, routes, masquerade, eBPF. It does so again on
// every change of the cluster or of the kernel, and every half minute.
package network

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/daemonset/checkpoint"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/nodenet"
	"github.com/sealane/sealane/overlay"
)

const (
	// resync is the longest time between full passes. A full pass repairs drift that
	// nobody notified this daemon of.
	resync = 30 * time.Second
	// linkPause separates passes that only changes of kernel devices ask for: each
	// pod that comes or goes is such a change.
	linkPause = time.Second
	// retryPause separates a pass that failed from the next.
	retryPause = 2 * time.Second
	// hostTime bounds the change of routes and masquerade. With thousands of nodes it takes
	// a second or two.
	hostTime = 20 * time.Second
)

// Links is what the loop reads of the kernel's devices. *nl.Handle is one.
type Links interface {
	Watch(context.Context) (<-chan struct{}, error)
	Links() ([]nl.Link, error)
	AllAddresses() (map[int][]netip.Prefix, error)
	Routes(nl.RouteFilter) ([]nl.Route, error)
}

// Host is the part of the host beside lanes that follows a plan: routes, rules,
// masquerade. *hostnet.Host is one.
type Host interface {
	// Retract removes the routes into lanes that a plan does not have.
	Retract(overlay.Plan) error
	Apply(context.Context, overlay.Plan) error
}

// Datapath is what the loop needs of the eBPF data path. *bpf.Datapath is one.
type Datapath interface {
	AttachTunnel(bpf.Device, bpf.Encapsulation) error
	AttachUplink(bpf.Device, bpf.Encapsulation) error
	SyncForwards([]bpf.Forward) error
	Keep(names map[string]bool) error
}

// Ranges takes over the pod ranges of this node. *ipam.Allocator is one.
type Ranges interface {
	SetPrefixes([]netip.Prefix) error
}

// Plan is what the configuration says of lanes.
type Plan struct {
	Encapsulation  overlay.Kind
	AllowPlaintext bool
	BasePort       uint16   // first of the four UDP ports of WireGuard
	MTU            int      // of lanes and pods, in bytes; 0: the underlay's less the overhead
	Uplinks        []string // devices that the leak guard watches; empty: found by addresses and default routes
	Ports          overlay.Ports
}

// Keys are what encrypted lanes need.
type Keys struct {
	Trust   *trust.Keeper
	Rotator *rotate.Rotator
}

// Config is what a Loop is made of.
type Config struct {
	Node string // name of this node's Node object
	Plan Plan
	Keys *Keys // nil: lanes are not encrypted
	// Rules says which addresses and pod ranges nodes can have; where the API server is
	// follows from snapshots.
	Rules      nodenet.Rules
	Checkpoint *checkpoint.Store
	Ranges     Ranges
	Links      Links
	Datapath   Datapath
	Lanes      overlay.Backend
	// Restarted has a value when lanes have to be made again; nil: never.
	Restarted <-chan struct{}
	Host      Host
	State     *readiness.State
	Logger    *slog.Logger
}

// View is what the loop knows after a pass, for status.
type View struct {
	Self          kube.Node
	Plan          overlay.Plan
	Peers         []trust.Result
	Uplinks       []string
	ClusterRanges []netip.Prefix
	Revocations   uint64 // number of the revocation list that the lanes follow; 0: none
	FromDisk      bool   // the snapshot came from disk, not from the API server
}

// Loop makes this host follow the cluster. Only View is safe for concurrent use.
type Loop struct {
	Config
	security security
	wakes    feeds         // of security
	hostTime time.Duration // see the constant
	// remembered is what is on disk besides the checkpoint: records of peers, and this
	// node's last statement.
	remembered checkpoint.Records
	log        *slog.Logger

	// applied is the plan that the host follows, as of applyTime. Both are zero after
	// a pass that failed.
	applied   overlay.Plan
	applyTime time.Time
	view      atomic.Pointer[View]
}

// New returns a Loop that has applied nothing.
func New(c Config) *Loop {
	l := &Loop{Config: c, log: c.Logger, security: plaintext{self: c.Node, rules: c.Rules}, hostTime: hostTime}
	l.remembered = func() ([]keymgr.Record, keymgr.Signed) { return nil, keymgr.Signed{} }
	if c.Keys != nil {
		l.remembered = c.Keys.Trust.Remembered
		e := &encrypted{trust: c.Keys.Trust, rotator: c.Keys.Rotator, lanes: c.Lanes}
		l.security, l.wakes = e, e.feeds()
	}
	return l
}

// View returns what the newest pass has found, nil before the first. A pass that
// fails to apply its plan is a pass.
func (l *Loop) View() *View { return l.view.Load() }

// Run makes a pass whenever something may have changed, until ctx ends.
func (l *Loop) Run(ctx context.Context, watch checkpoint.Watch) error {
	links, err := l.Links.Watch(ctx)
	if err != nil {
		return fmt.Errorf("watch devices: %w", err)
	}
	f := l.wakes
	f.changed, f.confirmed, f.links, f.timer = watch.Changed(), l.Checkpoint.Confirmed(), links, time.NewTimer(0)
	for {
		what, err := l.await(ctx, f)
		if err != nil || ctx.Err() != nil {
			return err
		}
		snap, synced := l.Checkpoint.Current(watch, l.remembered)
		if !synced || what == nothing {
			continue
		}
		next, err := l.pass(ctx, snap, what == lanesOnly)
		l.State.Report(readiness.Network, err)
		if err != nil && ctx.Err() == nil {
			l.log.Error("host does not follow the plan", "error", err, "retry", retryPause)
			next, l.applyTime = retryPause, time.Time{} // a full pass, then
		}
		if err == nil {
			l.Checkpoint.Save(snap, l.remembered)
		}
		f.timer.Reset(next)
	}
}

// scope is how much a pass has to look at.
type scope int

const (
	nothing   scope = iota
	lanesOnly       // only the peers of lanes
	everything
)

// feeds are what the loop waits for.
type feeds struct {
	changed   <-chan struct{} // the API server has news
	confirmed <-chan struct{} // the same, after a start without it
	own       <-chan struct{} // this node's identity has changed
	paired    <-chan struct{} // a peer waits for its preshared key
	exchanged <-chan rotate.Exchanged
	take      func(rotate.Exchanged)
	links     <-chan struct{} // devices, addresses or routes of the kernel have changed
	timer     *time.Timer
}

// await returns when there is something to do, or when ctx ends.
func (l *Loop) await(ctx context.Context, f feeds) (scope, error) {
	select {
	case <-ctx.Done():
	case <-f.changed:
	case <-f.confirmed:
	case <-f.own:
	case <-f.paired:
		return l.renew(ctx, f.timer), nil
	case r := <-f.exchanged:
		f.take(r)
		return l.renew(ctx, f.timer), nil
	case <-l.Restarted:
	case _, ok := <-f.links:
		if !ok && ctx.Err() == nil {
			return nothing, errLinks
		}
		f.pause(ctx)
	case <-f.timer.C:
		return l.poll(ctx, f.timer), nil
	}
	return everything, nil
}

// pause lets more changes of the kernel come, unless something more urgent does.
func (f feeds) pause(ctx context.Context) {
	t := time.NewTimer(linkPause)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	case <-f.changed:
	case <-f.own:
	case <-f.paired:
	}
}

// poll checks, when its time has come, whether a rotation or a pairing goes on.
func (l *Loop) poll(ctx context.Context, timer *time.Timer) scope {
	left := resync - time.Since(l.applyTime)
	if left <= 0 {
		return everything
	}
	changed, next := l.security.poll(ctx)
	if changed {
		return lanesOnly
	}
	timer.Reset(min(next, left))
	return nothing
}

// renew brings new preshared keys to lanes whose plan stays as it is. In a large
// cluster an exchange ends every second, and full passes for each of them would be
// most of what the daemon does.
func (l *Loop) renew(ctx context.Context, timer *time.Timer) scope {
	left := resync - time.Since(l.applyTime)
	if left <= 0 || len(l.applied.Tunnels) == 0 {
		return lanesOnly // the last pass is old or failed: there is no plan to keep
	}
	changed, next := l.security.renew(ctx, l.applied)
	if changed {
		return lanesOnly
	}
	timer.Reset(min(next, left))
	return nothing
}
