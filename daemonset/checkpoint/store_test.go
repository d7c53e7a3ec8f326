// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package checkpoint

import (
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
)

var errRefused = errors.New("connection refused")

// api is an API server that answers, or does not.
type api struct {
	mu        sync.Mutex // guards all below
	err       error
	domain    string
	self      keymgr.LiveNode
	cluster   []netip.Prefix
	services  []netip.Prefix
	badConfig error // kubeadm's configuration cannot be read
}

func (a *api) set(change func(*api)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	change(a)
}

func (a *api) TrustDomain(context.Context) (string, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.domain, a.err
}

func (a *api) Node(_ context.Context, name string) (kube.Node, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if name != a.self.ID.Name {
		return kube.Node{}, kube.ErrNotFound
	}
	return nodeOf(a.self), a.err
}

func (a *api) ClusterNetworks(context.Context) (kube.Networks, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return kube.Networks{PodCIDRs: a.cluster, ServiceCIDRs: a.services}, errors.Join(a.badConfig, a.err)
}

// statusError is an answer of the API server.
func statusError(code int32) error {
	return &apierrors.StatusError{ErrStatus: metav1.Status{Code: code}}
}

// deaf never answers.
type deaf struct{ api }

func (d *deaf) ClusterNetworks(ctx context.Context) (kube.Networks, error) {
	<-ctx.Done()
	return kube.Networks{}, ctx.Err()
}

func nodeOf(n keymgr.LiveNode) kube.Node {
	return kube.Node{Name: n.ID.Name, UID: n.ID.UID, PodCIDRs: n.PodCIDRs, Addresses: n.Addresses, Created: n.Created, ControlPlane: n.ControlPlane}
}

// seen is a watch.
type seen struct {
	snap   cluster.Snapshot
	synced bool
}

func (s *seen) Snapshot() (cluster.Snapshot, bool) { return s.snap, s.synced }
func (s *seen) Changed() <-chan struct{}           { return nil }

// home is a node with an identity, an accepted peer, and an API server.
type home struct {
	t        *testing.T
	c        *keytest.Cluster
	api      *api
	cfg      Config
	peer     *keytest.Node
	self     *keytest.Node
	verifier *keymgr.Verifier
}

func newHome(t *testing.T) *home {
	t.Helper()
	dir := t.TempDir()
	h := &home{t: t, c: keytest.NewCluster(t)}
	h.self, h.peer = h.c.Node("self", "10.244.1.0/24"), h.c.Node("peer", "10.244.2.0/24")
	keys := filepath.Join(dir, "keys")
	if err := h.c.Identity(h.self.Live.ID, keys).SaveBundle(h.c.Authority.Bundle()); err != nil {
		t.Fatal(err)
	}
	h.verifier = h.c.Verifier("self")
	h.api = &api{domain: keytest.TrustDomain, self: h.self.Live, cluster: example().ClusterCIDRs}
	h.cfg = Config{
		Path: filepath.Join(dir, "checkpoint.json"), Node: "self", Cluster: h.api, Keys: keys,
		Report: func(error) {}, Logger: slog.New(slog.DiscardHandler), Patience: 10 * time.Millisecond,
	}
	return h
}

func (h *home) begin() (*Store, error) {
	ctx, cancel := context.WithTimeout(h.t.Context(), 200*time.Millisecond)
	defer cancel()
	return Load(ctx, h.cfg)
}

func (h *home) mustBegin() *Store {
	h.t.Helper()
	k, err := h.begin()
	if err != nil {
		h.t.Fatal(err)
	}
	return k
}

func (h *home) recall() ([]keymgr.Record, keymgr.Signed) {
	own, _ := h.self.Identity.Last()
	return h.verifier.Remembered(), own
}

// world is what the API server has: the peer with its statement, and a node without.
func (h *home) world() cluster.Snapshot {
	h.t.Helper()
	snap := cluster.Snapshot{
		Nodes:    []kube.Node{nodeOf(example().Others[0]), nodeOf(h.peer.Live), nodeOf(h.self.Live)},
		NodeKeys: map[string]keymgr.Signed{"peer": h.peer.Sign(), "self": h.self.Sign()},
	}
	if _, err := h.verifier.Verify(snap.NodeKeys["peer"], h.peer.Live); err != nil {
		h.t.Fatal(err)
	}
	return snap
}

func (h *home) leaves() { h.api.set(func(a *api) { a.err = errRefused }) }

func names(snap cluster.Snapshot) (all []string) {
	for _, n := range snap.Nodes {
		all = append(all, n.Name)
	}
	slices.Sort(all)
	return all
}

func TestStartsFromDiskAndComesBack(t *testing.T) {
	h := newHome(t)
	k := h.mustBegin()
	if k.FromDisk() != nil {
		t.Fatal("the API server answered, and was not believed")
	}
	world := h.world()
	k.Save(world, h.recall)
	if info, err := os.Stat(h.cfg.Path); err != nil || info.Mode() != 0o600 {
		t.Fatalf("checkpoint: %v, %v", info, err)
	}

	h.leaves()
	k = h.mustBegin()
	if !errors.Is(k.FromDisk(), ErrFromDisk) {
		t.Fatal("not started from disk")
	}
	want := Basis{TrustDomain: keytest.TrustDomain, Self: h.self.Live, ClusterCIDRs: example().ClusterCIDRs}
	if diff := cmp.Diff(want, k.Basis(), equate()); diff != "" {
		t.Errorf("basis (-want +got):\n%s", diff)
	}
	watch := &seen{}
	snap, ok := k.Current(watch, h.recall)
	if diff := cmp.Diff([]string{"new", "peer", "self"}, names(snap)); !ok || diff != "" {
		t.Errorf("ok %t, nodes (-want +got):\n%s", ok, diff)
	}
	if !snap.NodeKeys["peer"].Equal(world.NodeKeys["peer"]) || !snap.NodeKeys["self"].Equal(world.NodeKeys["self"]) {
		t.Error("statements are not those of before")
	}
	// The same way as anything that the API server says.
	for _, n := range snap.Nodes {
		if n.Name == "peer" {
			if _, err := h.verifier.Verify(snap.NodeKeys["peer"], n.Live()); err != nil {
				t.Error(err)
			}
		}
	}

	// It comes back with another range. The watch is first, and must wait.
	h.api.set(func(a *api) { a.cluster = a.cluster[:1] })
	now := world
	now.Nodes = now.Nodes[1:]
	watch.snap, watch.synced = now, true
	if snap, _ = k.Current(watch, h.recall); len(snap.Nodes) != 3 || k.FromDisk() == nil {
		t.Error("followed before it is known whose API server it is")
	}
	news, done := make(chan struct{}, 1), make(chan error, 1)
	go func() { done <- k.Confirm(t.Context(), news) }()
	h.api.set(func(a *api) { a.err = nil })
	news <- struct{}{}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	<-k.Confirmed()
	watch.synced = false
	if snap, ok = k.Current(watch, h.recall); !ok || len(snap.Nodes) != 3 {
		t.Error("followed before everything has been seen")
	}
	watch.synced = true
	if snap, ok = k.Current(watch, h.recall); !ok || len(snap.Nodes) != 2 || k.FromDisk() != nil {
		t.Errorf("ok %t, from disk: %v, nodes %v; want what the watch has", ok, k.FromDisk(), names(snap))
	}
	if got := k.Basis().ClusterCIDRs; len(got) != 1 {
		t.Errorf("the cluster's ranges are %v still", got)
	}
}

// TestIdentityIsAnother: the Node was made anew, or it is another cluster.
func TestIdentityIsAnother(t *testing.T) {
	for name, change := range map[string]func(*api){
		"node made anew":  func(a *api) { a.self.ID.UID = "1-2" },
		"another cluster": func(a *api) { a.domain = "5f1c9c0e-7d1f-4a53-9c55-3d1f3f0a5a11" },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			h.mustBegin().Save(h.world(), h.recall)
			h.leaves()
			k := h.mustBegin()
			h.api.set(change)
			h.api.set(func(a *api) { a.err = nil })
			if err := k.Confirm(t.Context(), nil); !errors.Is(err, ErrOther) {
				t.Errorf("error %v, want ErrOther", err)
			}
			if k.FromDisk() == nil || k.Basis().Self.ID != h.self.Live.ID {
				t.Error("the identity changed under the daemon")
			}
		})
	}
}

// TestWaitsForTheAPIServer: there is nothing to start from, or it must not be used.
func TestWaitsForTheAPIServer(t *testing.T) {
	for name, spoil := range map[string]func(*home){
		"no checkpoint":     func(h *home) { h.remove(h.cfg.Path) },
		"spoilt file":       func(h *home) { h.write(h.cfg.Path, "{") },
		"another node's":    func(h *home) { h.cfg.Node = "peer" },
		"no identity":       func(h *home) { h.cfg.Keys = t.TempDir() },
		"another identity":  func(h *home) { h.other() },
		"no roots":          func(h *home) { h.remove(filepath.Join(h.cfg.Keys, "bundle.pem")) },
		"spoilt roots":      func(h *home) { h.write(filepath.Join(h.cfg.Keys, "bundle.pem"), "x") },
		"unfit":             func(h *home) { h.cfg.Unfit = errors.New("other maps") },
		"bad configuration": func(h *home) { h.api.set(func(a *api) { a.err = kube.ErrBadConfig }) },
	} {
		t.Run(name, func(t *testing.T) {
			h := newHome(t)
			h.mustBegin().Save(h.world(), h.recall)
			h.leaves()
			var reported error
			h.cfg.Report = func(err error) { reported = err }
			spoil(h)
			k, err := h.begin()
			if err == nil || k.FromDisk() != nil {
				t.Fatalf("started, from disk: %v", k.FromDisk())
			}
			if !errors.Is(err, kube.ErrBadConfig) && !errors.Is(reported, errRefused) {
				t.Errorf("reported %v", reported)
			}
		})
	}
}

func (h *home) remove(path string) {
	h.t.Helper()
	if err := os.Remove(path); err != nil {
		h.t.Fatal(err)
	}
}

func (h *home) write(path, text string) {
	h.t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		h.t.Fatal(err)
	}
}

// other lets the keys be those of the node after it was made anew.
func (h *home) other() {
	h.t.Helper()
	id := h.self.Live.ID
	id.UID = "1-2"
	if err := h.c.Identity(id, h.cfg.Keys).SaveBundle(h.c.Authority.Bundle()); err != nil {
		h.t.Fatal(err)
	}
}

// TestAnswerThatIsNoReasonToStart: the API server is there, and knows no such node.
func TestAnswerThatIsNoReasonToStart(t *testing.T) {
	h := newHome(t)
	h.mustBegin().Save(h.world(), h.recall)
	h.api.set(func(a *api) { a.err = statusError(404) })
	if k, err := h.begin(); err == nil || k.FromDisk() != nil {
		t.Errorf("error %v, from disk: %v", err, k.FromDisk())
	}
	h.api.set(func(a *api) { a.err = statusError(503) })
	if k := h.mustBegin(); k.FromDisk() == nil {
		t.Error("not started from disk while the API server cannot answer")
	}
}

// TestSilenceIsBounded: packets to the API server vanish.
func TestSilenceIsBounded(t *testing.T) {
	h := newHome(t)
	h.mustBegin().Save(h.world(), h.recall)
	h.cfg.Cluster = &deaf{}
	if k := h.mustBegin(); k.FromDisk() == nil {
		t.Error("not started from disk")
	}
}

// TestConfiguredRanges go before the cluster's, and are not kept.
func TestConfiguredRanges(t *testing.T) {
	h := newHome(t)
	h.cfg.ClusterCIDRs = []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}
	h.api.badConfig = kube.ErrBadConfig
	if k := h.mustBegin(); !slices.Equal(k.Basis().ClusterCIDRs, h.cfg.ClusterCIDRs) {
		t.Errorf("kubeadm's configuration cannot be read: %v", k.Basis().ClusterCIDRs)
	}
	h.api.badConfig, h.api.services = nil, []netip.Prefix{netip.MustParsePrefix("10.96.0.0/12")}
	k := h.mustBegin()
	k.Save(h.world(), h.recall)
	if !slices.Equal(k.Basis().ClusterCIDRs, h.cfg.ClusterCIDRs) || !slices.Equal(k.Basis().ServiceCIDRs, h.api.services) {
		t.Errorf("ranges %v, of Services %v", k.Basis().ClusterCIDRs, k.Basis().ServiceCIDRs)
	}
	p, err := k.read()
	if err != nil || p.ClusterCIDRs != nil {
		t.Errorf("error %v, kept %v", err, p.ClusterCIDRs)
	}
	h.leaves()
	if k = h.mustBegin(); !slices.Equal(k.Basis().ClusterCIDRs, h.cfg.ClusterCIDRs) || !slices.Equal(k.Basis().ServiceCIDRs, h.api.services) {
		t.Errorf("from disk: %v, of Services %v", k.Basis().ClusterCIDRs, k.Basis().ServiceCIDRs)
	}
}

// TestNothingIsKeptTwice: what keymgr remembers is not in the checkpoint, and a checkpoint
// of the same is not taken again.
func TestNothingIsKeptTwice(t *testing.T) {
	h := newHome(t)
	k := h.mustBegin()
	world := h.world()
	k.Save(world, h.recall)
	p, err := k.read()
	if err != nil || len(p.Others) != 1 || p.Others[0].ID.Name != "new" {
		t.Fatalf("error %v, others %+v", err, p.Others)
	}
	h.remove(h.cfg.Path)
	k.Save(world, h.recall)
	if _, err := os.Stat(h.cfg.Path); !errors.Is(err, fs.ErrNotExist) {
		t.Error("the same checkpoint was written again")
	}
	// A node that moved is not as keymgr remembers it.
	world.Nodes = slices.Clone(world.Nodes)
	world.Nodes[1].Addresses = []netip.Addr{netip.MustParseAddr("192.0.2.77")}
	k.Save(world, h.recall)
	if p, err = k.read(); err != nil || len(p.Others) != 2 {
		t.Fatalf("error %v, others %+v", err, p.Others)
	}
	records, own := h.recall()
	snap := p.snapshot(records, own)
	i := slices.IndexFunc(snap.Nodes, func(n kube.Node) bool { return n.Name == "peer" })
	if diff := cmp.Diff(world.Nodes[1], snap.Nodes[i], equate()); len(snap.Nodes) != 3 || diff != "" {
		t.Errorf("%d nodes, the one that moved (-want +got):\n%s", len(snap.Nodes), diff)
	}
}

// TestCrashBeforeSave: keymgr has a record that is newer.
func TestCrashBeforeSave(t *testing.T) {
	h := newHome(t)
	h.world()
	p := example()
	old := h.peer.Live
	old.ID.UID = "1-2"
	p.Others = []keymgr.LiveNode{old}
	records, own := h.recall()
	snap := p.snapshot(records, own)
	if len(snap.Nodes) != 2 || !slices.ContainsFunc(snap.Nodes, func(n kube.Node) bool { return n.UID == h.peer.Live.ID.UID }) {
		t.Errorf("nodes %+v", snap.Nodes)
	}
	if _, ok := snap.NodeKeys["self"]; ok {
		t.Error("a statement that nobody can know of passes for published")
	}
}

// TestOnlyWhatWasPublishedIs: a statement that was signed and not published is not
// known to anybody.
func TestOnlyWhatWasPublishedIs(t *testing.T) {
	h := newHome(t)
	k := h.mustBegin()
	k.Save(h.world(), h.recall)
	h.self.Sign()
	h.leaves()
	snap, _ := h.mustBegin().Current(&seen{}, h.recall)
	if _, ok := snap.NodeKeys["self"]; ok {
		t.Error("a statement that was never published passes for published")
	}
}

// TestUpgradeReadsTheFormerFile: an earlier version has left its file under another name.
func TestUpgradeReadsTheFormerFile(t *testing.T) {
	h := newHome(t)
	h.mustBegin().Save(h.world(), h.recall)
	former := filepath.Join(filepath.Dir(h.cfg.Path), formerName)
	if err := os.Rename(h.cfg.Path, former); err != nil {
		t.Fatal(err)
	}
	h.leaves()
	k := h.mustBegin()
	snap, ok := k.Current(&seen{}, h.recall)
	if !ok || k.FromDisk() == nil || len(snap.Nodes) != 3 {
		t.Fatalf("ok %t, from disk: %v, nodes %v", ok, k.FromDisk(), names(snap))
	}

	// It stays until there is another one, and goes then.
	if _, err := os.Stat(former); err != nil {
		t.Fatal(err)
	}
	h.api.set(func(a *api) { a.err = nil })
	h.mustBegin().Save(h.world(), h.recall)
	if _, err := os.Stat(former); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the former file is still there: %v", err)
	}

	// What this version has written comes first.
	h.write(former, "{")
	h.leaves()
	if k := h.mustBegin(); k.FromDisk() == nil {
		t.Error("not started from disk")
	}
}
