// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package checkpoint

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/internal/atomicfile"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
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
	ClusterNetworks(context.Context) (kube.Networks, error)
}

// Config says where the checkpoint is, and whom to ask instead of it.
type Config struct {
	Path    string // of the file
	Node    string // this node's name
	Cluster Cluster
	// ClusterCIDRs are the configured pod ranges; empty means to ask the cluster.
	ClusterCIDRs []netip.Prefix
	// Keys is the folder of the node's identity; empty means that the node has none.
	Keys string
	// Unfit says why this node must not start from disk; nil means that it may.
	Unfit error
	// Report is called with the reason for which the start has to wait.
	Report func(error)
	Logger *slog.Logger
	// Patience is how long to wait for the API server before starting from disk; 0 means
	// 5 s.
	Patience time.Duration
}

// Basis is what a daemon must know about the cluster before anything else.
type Basis struct {
	TrustDomain  string
	Self         keymgr.LiveNode
	ClusterCIDRs []netip.Prefix
	ServiceCIDRs []netip.Prefix // as far as the cluster says
}

// Store knows the basis, and keeps the checkpoint up to date. Only Confirm and Basis may
// be called beside the one goroutine that uses it.
type Store struct {
	cfg   Config
	begun Basis
	// loaded is the checkpoint that the daemon follows; nil means that it follows the API
	// server.
	loaded *State
	// confirmed is what the API server answered after a start from disk.
	confirmed atomic.Pointer[Basis]
	news      chan struct{}
	saved     []byte
}

// Load asks the API server for the basis until it answers. If there is no answer within
// Config.Patience, and a checkpoint of this node is on disk, Load returns that instead.
func Load(ctx context.Context, cfg Config) (*Store, error) {
	if cfg.Patience == 0 {
		cfg.Patience = patience
	}
	s := &Store{cfg: cfg, news: make(chan struct{}, 1)}
	early, cancel := context.WithTimeout(ctx, cfg.Patience)
	defer cancel()
	b, err := s.untilAnswered(early, nil)
	if early.Err() != nil && ctx.Err() == nil && kube.Unavailable(err) && s.loadFile(err) {
		return s, nil
	}
	if early.Err() != nil && ctx.Err() == nil && err != nil {
		b, err = s.untilAnswered(ctx, nil)
	}
	if s.begun = b; err == nil && len(b.ClusterCIDRs) == 0 {
		cfg.Logger.Warn("the cluster's pod ranges are unknown: pods of nodes that this daemon has not heard of yet are not protected by the leak guard; set --cluster-pod-cidrs")
	}
	return s, err
}

// loadFile makes the checkpoint the basis, and reports whether there is a usable one.
func (s *Store) loadFile(why error) bool {
	p, err := s.read()
	if err != nil {
		s.cfg.Logger.Warn("the API server is away, and no checkpoint can replace it", "error", err)
		return false
	}
	s.loaded = &p
	s.begun = Basis{TrustDomain: p.TrustDomain, Self: p.Self, ClusterCIDRs: s.cfg.ClusterCIDRs, ServiceCIDRs: p.ServiceCIDRs}
	if len(s.begun.ClusterCIDRs) == 0 {
		s.begun.ClusterCIDRs = p.ClusterCIDRs
	}
	s.cfg.Logger.Warn("the API server is away: starting from the checkpoint", "node", p.Self.ID, "error", why)
	return true
}

func (s *Store) read() (State, error) {
	if s.cfg.Unfit != nil {
		return State{}, s.cfg.Unfit
	}
	path, data, err := s.readFile()
	if err != nil {
		return State{}, fmt.Errorf("read checkpoint: %w", err)
	}
	p, err := Parse(data)
	if err != nil {
		return State{}, fmt.Errorf("read checkpoint %s: %w", path, err)
	}
	var owner *identity.Owner
	if s.cfg.Keys != "" {
		o, err := identity.Peek(s.cfg.Keys)
		if err != nil {
			return State{}, err
		}
		owner = &o
	}
	if err := p.mustBe(s.cfg.Node, owner); err != nil {
		return State{}, fmt.Errorf("read checkpoint %s: %w", path, err)
	}
	return p, nil
}

// formerName is what versions before the first release called the file. Support for it
// may go after that release: readFile then reads Config.Path only.
const formerName = "picture.json"

func (s *Store) formerPath() string { return filepath.Join(filepath.Dir(s.cfg.Path), formerName) }

// readFile reads the file of this version or, after an upgrade, that of the last one.
func (s *Store) readFile() (path string, data []byte, err error) {
	path = s.cfg.Path
	data, err = os.ReadFile(path)
	if errors.Is(err, fs.ErrNotExist) {
		if former, formerErr := os.ReadFile(s.formerPath()); formerErr == nil {
			return s.formerPath(), former, nil
		}
	}
	return path, data, err
}

// writeFile replaces the file, and removes the one of an earlier version.
func (s *Store) writeFile(data []byte) error {
	if err := atomicfile.Write(s.cfg.Path, data, 0o600); err != nil {
		return err
	}
	if err := os.Remove(s.formerPath()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// untilAnswered asks again until the API server answers or ctx ends; then it returns the
// last error. A value from news makes it ask at once.
func (s *Store) untilAnswered(ctx context.Context, news <-chan struct{}) (Basis, error) {
	wait := retryLeast
	for {
		b, err := s.ask(ctx)
		if err == nil || errors.Is(err, kube.ErrBadConfig) {
			return b, err
		}
		if s.loaded == nil {
			s.cfg.Report(err)
		}
		s.cfg.Logger.Warn("waiting for the API server", "error", err)
		select {
		case <-ctx.Done():
			return b, err
		case <-news:
		case <-time.After(wait):
		}
		wait = min(2*wait, retryMost)
	}
}

func (s *Store) ask(ctx context.Context) (b Basis, err error) {
	networks, err := kube.LearnNetworks(ctx, s.cfg.Cluster, s.cfg.ClusterCIDRs)
	if err != nil {
		return b, err
	}
	b.ClusterCIDRs, b.ServiceCIDRs = networks.PodCIDRs, networks.ServiceCIDRs
	if b.TrustDomain, err = s.cfg.Cluster.TrustDomain(ctx); err != nil {
		return b, fmt.Errorf("learn which cluster this is: %w", err)
	}
	n, err := s.cfg.Cluster.Node(ctx, s.cfg.Node)
	if err != nil {
		return b, fmt.Errorf("learn who this node is: %w", err)
	}
	b.Self = n.Live()
	return b, nil
}

// Basis returns what the API server has answered or, until then, what the checkpoint
// says.
func (s *Store) Basis() Basis {
	if b := s.confirmed.Load(); b != nil {
		return *b
	}
	return s.begun
}

// Confirm asks the API server, after a start from disk, until it answers; a value from
// news makes it ask at once. It returns ErrOther if the daemon has started as a node that
// no longer exists.
func (s *Store) Confirm(ctx context.Context, news <-chan struct{}) error {
	if s.loaded == nil {
		return nil
	}
	b, err := s.untilAnswered(ctx, news)
	switch {
	case ctx.Err() != nil:
		return nil
	case err != nil:
		return err
	case b.TrustDomain != s.begun.TrustDomain || b.Self.ID != s.begun.Self.ID:
		return fmt.Errorf("%w: started without the API server as node %s of cluster %s, which now is node %s of cluster %s: start again",
			ErrOther, s.begun.Self.ID, s.begun.TrustDomain, b.Self.ID, b.TrustDomain)
	}
	s.confirmed.Store(&b)
	s.news <- struct{}{} // nobody else sends
	return nil
}

// Confirmed receives a value when Confirm is done.
func (s *Store) Confirmed() <-chan struct{} { return s.news }

// FromDisk returns ErrFromDisk after a start from the checkpoint, until the watch has
// seen everything and Confirm is done.
func (s *Store) FromDisk() error {
	if s.loaded == nil {
		return nil
	}
	return ErrFromDisk
}

// Current returns what to follow: what the watch has seen or, after a start from disk
// until the API server is back, the checkpoint together with keymgr's records. It also
// reports whether that is complete.
func (s *Store) Current(watch Watch, records Records) (cluster.Snapshot, bool) {
	snap, synced := watch.Snapshot()
	switch {
	case s.loaded == nil:
		return snap, synced
	case synced && s.confirmed.Load() != nil:
		s.loaded = nil
		s.cfg.Logger.Info("the API server is back: following it")
		return snap, true
	}
	others, own := records()
	return s.loaded.snapshot(others, own), true
}

// Records returns keymgr's records of other nodes, and this node's last statement.
type Records func() ([]keymgr.Record, keymgr.Signed)

// Watch is what the API server has. *cluster.Watcher is one.
type Watch interface {
	Snapshot() (cluster.Snapshot, bool)
	Changed() <-chan struct{}
}

// snapshot returns what the API server last said, as far as it is known.
func (p *State) snapshot(records []keymgr.Record, own keymgr.Signed) cluster.Snapshot {
	snap := cluster.Snapshot{APIServer: p.APIServer, NodeKeys: map[string]keymgr.Signed{}, Rotations: map[string]cluster.RotationRequest{}}
	uids, listed := map[string]string{p.Self.ID.Name: p.Self.ID.UID}, map[string]bool{}
	for _, r := range records {
		uids[r.ID.Name] = r.ID.UID
		snap.NodeKeys[r.ID.Name] = r.Statement
	}
	add := func(n keymgr.LiveNode) {
		// One name belongs to one node. If a crash kept the daemon from saving, keymgr's
		// record is newer than the checkpoint.
		if uid, known := uids[n.ID.Name]; listed[n.ID.Name] || known && uid != n.ID.UID {
			return
		}
		listed[n.ID.Name] = true
		snap.Nodes = append(snap.Nodes, kube.Node{
			Name: n.ID.Name, UID: n.ID.UID, PodCIDRs: n.PodCIDRs, Addresses: n.Addresses, Created: n.Created, ControlPlane: n.ControlPlane,
		})
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

// Save writes a checkpoint of what is followed, if it has changed since the last one.
func (s *Store) Save(snap cluster.Snapshot, records Records) {
	if s.loaded != nil {
		return // it comes from the disk
	}
	others, _ := records()
	p := newState(s.Basis(), snap, others)
	if len(s.cfg.ClusterCIDRs) > 0 {
		p.ClusterCIDRs = nil // they are configured
	}
	data, err := p.Encode()
	if err == nil && bytes.Equal(data, s.saved) {
		return
	}
	if err == nil {
		err = s.writeFile(data)
	}
	if err != nil {
		s.cfg.Logger.Error("checkpoint not saved: without the API server this daemon could not start again", "error", err)
		return
	}
	s.saved = data
}

// newState returns the part of snap that keymgr has no record of.
func newState(b Basis, snap cluster.Snapshot, records []keymgr.Record) State {
	p := State{TrustDomain: b.TrustDomain, Self: b.Self, ClusterCIDRs: b.ClusterCIDRs, ServiceCIDRs: b.ServiceCIDRs, APIServer: snap.APIServer}
	recorded := map[string]keymgr.LiveNode{}
	for _, r := range records {
		recorded[r.ID.UID] = r.Live
	}
	for _, n := range snap.Nodes {
		node := n.Live()
		switch old, ok := recorded[n.UID]; {
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
