// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"sync/atomic"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/internal/atomicfile"
	"github.com/sealane/sealane/keymgr"
)

const (
	// patience is how long a daemon that can start from disk waits for the API server.
	patience   = 5 * time.Second
	retryLeast = time.Second
	retryMost  = 30 * time.Second
)

// Cluster is what the API server is asked at the start. *kube.Client is one.
type Cluster interface {
	TrustDomain(context.Context) (string, error)
	Node(ctx context.Context, name string) (kube.Node, error)
	ClusterPodCIDRs(context.Context) ([]netip.Prefix, error)
}

// Config is what a Keeper is made of.
type Config struct {
	Path    string // of the file
	Node    string // this node's name
	Cluster Cluster
	// ClusterCIDRs are configured; empty: the cluster is asked for them.
	ClusterCIDRs []netip.Prefix
	// Keys is the folder of the node's identity; empty: it has none.
	Keys string
	// Unfit says why this node must not start from disk; nil: it may.
	Unfit error
	// Report hears why the start has to wait.
	Report func(error)
	Logger *slog.Logger
	// Patience is how long the API server is waited for before the start from disk;
	// 0 means 5 s.
	Patience time.Duration
}

// Basis is what a daemon has to know of the cluster before anything else.
type Basis struct {
	TrustDomain  string
	Self         keymgr.LiveNode
	ClusterCIDRs []netip.Prefix
}

// Keeper knows the basis, and keeps the picture. But for Confirm, which may run
// beside it, it is for one goroutine.
type Keeper struct {
	cfg   Config
	begun Basis
	// picture is what was started from; nil: the API server answered.
	picture *Picture
	// confirmed is what the API server answered later.
	confirmed atomic.Pointer[Basis]
	news      chan struct{}
	saved     []byte
}

// Begin asks the API server for the basis until it answers. If it does not for a
// short time, and there is a picture of this node on disk, that serves instead.
func Begin(ctx context.Context, cfg Config) (*Keeper, error) {
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	k := &Keeper{cfg: cfg, news: make(chan struct{}, 1)}
	early, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	b, err := k.untilAnswered(early, nil)
	if early.Err() != nil && ctx.Err() == nil && kube.Unavailable(err) && k.load(err) {
		return k, nil
	}
	if early.Err() != nil && ctx.Err() == nil && err != nil {
		b, err = k.untilAnswered(ctx, nil)
	}
	if k.begun = b; err == nil && len(b.ClusterCIDRs) == 0 {
		cfg.Logger.Warn("the cluster's pod ranges are unknown: pods of nodes that this daemon has not heard of yet are not protected by the leak guard; set --cluster-pod-cidrs")
	}
	return k, err
}

// load makes the picture the basis, if there is one that can be.
func (k *Keeper) load(why error) bool {
	p, err := k.read()
	if err != nil {
		k.cfg.Logger.Warn("the API server is away, and there is nothing to start from without it", "error", err)
		return false
	}
	k.picture = &p
	k.begun = Basis{TrustDomain: p.TrustDomain, Self: p.Self, ClusterCIDRs: k.cfg.ClusterCIDRs}
	if len(k.begun.ClusterCIDRs) == 0 {
		k.begun.ClusterCIDRs = p.ClusterCIDRs
	}
	k.cfg.Logger.Warn("the API server is away: starting from what was last seen of the cluster", "node", p.Self.ID, "error", why)
	return true
}

func (k *Keeper) read() (Picture, error) {
	if k.cfg.Unfit != nil {
		return Picture{}, k.cfg.Unfit
	}
	data, err := os.ReadFile(k.cfg.Path)
	if err != nil {
		return Picture{}, fmt.Errorf("read picture: %w", err)
	}
	p, err := Parse(data)
	if err != nil {
		return Picture{}, fmt.Errorf("read picture %s: %w", k.cfg.Path, err)
	}
	var owner *keymgr.Owner
	if k.cfg.Keys != "" {
		o, err := keymgr.Peek(k.cfg.Keys)
		if err != nil {
			return Picture{}, err
		}
		owner = &o
	}
	if err := p.mustBe(k.cfg.Node, owner); err != nil {
		return Picture{}, fmt.Errorf("read picture %s: %w", k.cfg.Path, err)
	}
	return p, nil
}

// untilAnswered repeats the questions until they are answered or ctx ends; then it
// returns why they were not. News are a reason to ask at once.
func (k *Keeper) untilAnswered(ctx context.Context, news <-chan struct{}) (Basis, error) {
	wait := retryLeast
	for {
		b, err := k.ask(ctx)
		if err == nil || errors.Is(err, kube.ErrBadConfig) {
			return b, err
		}
		if k.picture == nil {
			k.cfg.Report(err)
		}
		k.cfg.Logger.Warn("waiting for the API server", "error", err)
		select {
		case <-ctx.Done():
			return b, err
		case <-news:
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
}

func (k *Keeper) ask(ctx context.Context) (b Basis, err error) {
	if b.ClusterCIDRs = k.cfg.ClusterCIDRs; len(b.ClusterCIDRs) == 0 {
		if b.ClusterCIDRs, err = k.cfg.Cluster.ClusterPodCIDRs(ctx); err != nil {
			return b, fmt.Errorf("learn the cluster's pod ranges: %w", err)
		}
	}
	if b.TrustDomain, err = k.cfg.Cluster.TrustDomain(ctx); err != nil {
		return b, fmt.Errorf("learn which cluster this is: %w", err)
	}
	n, err := k.cfg.Cluster.Node(ctx, k.cfg.Node)
	if err != nil {
		return b, fmt.Errorf("learn who this node is: %w", err)
	}
	b.Self = n.Live()
	return b, nil
}

// Basis is what the API server has answered, or what the picture says as long as it
// has not.
func (k *Keeper) Basis() Basis {
	if b := k.confirmed.Load(); b != nil {
		return *b
	}
	return k.begun
}

// Confirm asks the API server, after a start from disk, until it has answered; news
// are a reason to ask at once. ErrOther: the daemon has started as somebody whom
// there is no more.
func (k *Keeper) Confirm(ctx context.Context, news <-chan struct{}) error {
	if k.picture == nil {
		return nil
	}
	b, err := k.untilAnswered(ctx, news)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case b.TrustDomain != k.begun.TrustDomain || b.Self.ID != k.begun.Self.ID:
		return fmt.Errorf("%w: started without the API server as node %s of cluster %s, which now is node %s of cluster %s: start again",
			ErrOther, k.begun.Self.ID, k.begun.TrustDomain, b.Self.ID, b.TrustDomain)
	}
	k.confirmed.Store(&b)
	k.news <- struct{}{} // nobody else sends
	return nil
}

// Confirmed has a value when Confirm is done.
func (k *Keeper) Confirmed() <-chan struct{} { return k.news }

// FromDisk is ErrFromDisk after a start from the picture, until the watch has seen
// everything and Confirm is done.
func (k *Keeper) FromDisk() error {
	if k.picture == nil {
		return nil
	}
	return ErrFromDisk
}

// Look returns what to follow: what the watch has seen, or after a start from disk
// and as long as need be, the picture with what keymgr remembers.
func (k *Keeper) Look(watch Watch, recall Recall) (kube.Snapshot, bool) {
	snap, synced := watch.Snapshot()
	switch {
	case k.picture == nil:
		return snap, synced
	case synced && k.confirmed.Load() != nil:
		k.picture = nil
		k.cfg.Logger.Info("the API server is there again, and followed")
		return snap, true
	}
	records, own := recall()
	return k.picture.snapshot(records, own), true
}

// Recall gives keymgr's records of other nodes, and this node's last statement.
type Recall func() ([]keymgr.Record, keymgr.Signed)

// Watch is what the API server has. *kube.Watcher is one.
type Watch interface {
	Snapshot() (kube.Snapshot, bool)
	Changed() <-chan struct{}
}

// snapshot is what the API server last said, as far as it is known.
func (p *Picture) snapshot(records []keymgr.Record, own keymgr.Signed) kube.Snapshot {
	snap := kube.Snapshot{NodeKeys: map[string]keymgr.Signed{}, Rotations: map[string]kube.RotationRequest{}}
	uids, listed := map[string]string{p.Self.ID.Name: p.Self.ID.UID}, map[string]bool{}
	for _, r := range records {
		uids[r.ID.Name] = r.ID.UID
		snap.NodeKeys[r.ID.Name] = r.Statement
	}
	add := func(n keymgr.LiveNode) {
		// One name has one node, and what keymgr remembers is newer than a picture that
		// a crash has kept from being taken.
		if uid, known := uids[n.ID.Name]; listed[n.ID.Name] || known && uid != n.ID.UID {
			return
		}
		listed[n.ID.Name] = true
		snap.Nodes = append(snap.Nodes, kube.Node{Name: n.ID.Name, UID: n.ID.UID, PodCIDRs: n.PodCIDRs, Addresses: n.Addresses})
	}
	for _, n := range append([]keymgr.LiveNode{p.Self}, p.Others...) {
		add(n)
	}
	for _, r := range records {
		add(r.Live)
	}
	if p.Published != nil && keymgr.HashPayload(own.Payload) == *p.Published {
		snap.NodeKeys[p.Self.ID.Name] = own
	}
	return snap
}

// Keep takes a picture of what is followed, if anything of it has changed since the
// last one.
func (k *Keeper) Keep(snap kube.Snapshot, recall Recall) {
	if k.picture != nil {
		return // it is on disk
	}
	records, _ := recall()
	p := take(k.Basis(), snap, records)
	if len(k.cfg.ClusterCIDRs) > 0 {
		p.ClusterCIDRs = nil // they are configured
	}
	data, err := p.Encode()
	if err == nil && bytes.Equal(data, k.saved) {
		return
	}
	if err == nil {
		err = atomicfile.Write(k.cfg.Path, data, 0o600)
	}
	if err != nil {
		k.cfg.Logger.Error("picture of the cluster not kept: without the API server this daemon could not start", "error", err)
		return
	}
	k.saved = data
}

// take makes a picture of what keymgr does not remember.
func take(b Basis, snap kube.Snapshot, records []keymgr.Record) Picture {
	p := Picture{TrustDomain: b.TrustDomain, Self: b.Self, ClusterCIDRs: b.ClusterCIDRs}
	remembered := map[string]keymgr.LiveNode{}
	for _, r := range records {
		remembered[r.ID.UID] = r.Live
	}
	for _, n := range snap.Nodes {
		node := n.Live()
		switch old, ok := remembered[n.UID]; {
		case n.Name == b.Self.ID.Name:
			p.Self = node
		case !ok || !equalNodes(old, node):
			p.Others = append(p.Others, node)
		}
	}
	if own, ok := snap.NodeKeys[b.Self.ID.Name]; ok {
		hash := keymgr.HashPayload(own.Payload)
		p.Published = &hash
	}
	return p
}
