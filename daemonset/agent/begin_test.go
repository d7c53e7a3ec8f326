// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/daemonset/checkpoint"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/network"
	"github.com/sealane/sealane/daemonset/podserver"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/overlay"
)

// town is a cluster of nodes whose daemons have the whole way from the API server
// to the plan, over a kernel that is a fake and addresses that are not.
type town struct {
	t      *testing.T
	c      *keytest.Cluster
	cable  *cable
	api    *httptest.Server // nil while it is away
	listen string           // where it is, or was
	nodes  []*dwelling
}

// dwelling is a node: what outlives its daemon, and the daemon.
type dwelling struct {
	town   *town
	live   keymgr.LiveNode
	cfg    Config
	config string // kubeconfig
	ns     *nettest.NS
	lanes  *fakeLanes
	watch  *fakeWatch
	signed keymgr.Signed

	d    *daemon
	stop func()
}

// fakeWatch is what a daemon has seen of the API server.
type fakeWatch struct {
	changed chan struct{}
	news    chan struct{}   // the same, for Confirm
	more    chan<- struct{} // the same, for who asks for it
	mu      sync.Mutex      // guards all below
	snap    cluster.Snapshot
	synced  bool
}

func (w *fakeWatch) Changed() <-chan struct{} { return w.changed }

func (w *fakeWatch) Snapshot() (cluster.Snapshot, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.snap, w.synced
}

// Notify gives c a value with each change.
func (w *fakeWatch) Notify(c chan<- struct{}) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.more = c
}

func (w *fakeWatch) see(snap cluster.Snapshot, synced bool) {
	w.mu.Lock()
	w.snap, w.synced = snap, synced
	all := []chan<- struct{}{w.changed, w.news, w.more}
	w.mu.Unlock()
	for _, c := range all {
		select {
		case c <- struct{}{}:
		default: // one is waiting already
		}
	}
}

// fakeHost does nothing with routes and programs.
type fakeHost struct{}

func (fakeHost) Apply(context.Context, overlay.Plan) error        { return nil }
func (fakeHost) Retract(overlay.Plan) error                       { return nil }
func (fakeHost) AttachTunnel(bpf.Device, bpf.Encapsulation) error { return nil }
func (fakeHost) AttachUplink(bpf.Device, bpf.Encapsulation) error { return nil }
func (fakeHost) SyncForwards([]bpf.Forward) error                 { return nil }
func (fakeHost) Keep(map[string]bool) error                       { return nil }
func (fakeHost) AttachPod(bpf.Device) error                       { return nil }
func (fakeHost) Detach(bpf.Device) error                          { return nil }
func (fakeHost) SetEndpoint(netip.Addr, bpf.Endpoint) error       { return nil }
func (fakeHost) DeleteEndpoint(netip.Addr) error                  { return nil }

func newTown(t *testing.T, names ...string) *town {
	t.Helper()
	w := &town{t: t, c: keytest.NewCluster(t), cable: &cable{ends: map[[2]keymgr.PublicKey]keymgr.PresharedKey{}}, listen: "127.0.0.1:0"}
	w.c.Clock.Add(time.Since(w.c.Clock.Now()))
	for i, name := range names {
		w.nodes = append(w.nodes, w.build(i, name))
	}
	w.apiServer(true)
	return w
}

func addressOf(i int) netip.Addr { return netip.AddrFrom4([4]byte{192, 0, 2, byte(i + 1)}) }

// asInhabitant says that the test runs in a namespace that has all addresses.
const asInhabitant = "SEALANE_TEST_TOWN"

// inside runs the test again in a namespace where each node's address is at home, and
// reports whether this is that run.
func inside(t *testing.T, nodes int) bool {
	t.Helper()
	nettest.Privileged(t)
	if os.Getenv(asInhabitant) != "" {
		return true
	}
	ns := nettest.NewNS(t)
	for i := range nodes {
		ns.Run("ip", "address", "add", addressOf(i).String(), "dev", "lo")
	}
	again := ns.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v")
	again.Env = append(os.Environ(), asInhabitant+"=1")
	out, err := again.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "--- PASS: "+t.Name()) {
		t.Errorf("in the namespace: %v\n%s", err, out)
	}
	return false
}

// build makes a node that has been in the cluster for a while.
func (w *town) build(i int, name string) *dwelling {
	t := w.t
	t.Helper()
	dir := t.TempDir()
	h := &dwelling{town: w, config: filepath.Join(dir, "kubeconfig"), ns: nettest.NewNS(t), watch: &fakeWatch{changed: make(chan struct{}, 1), news: make(chan struct{}, 1)}}
	h.live = keymgr.LiveNode{
		ID: keytest.ID(name), Addresses: []netip.Addr{addressOf(i)}, Created: time.Unix(1, 0).UTC(),
		PodCIDRs: []netip.Prefix{netip.PrefixFrom(netip.AddrFrom4([4]byte{10, 244, byte(i + 1), 0}), 24)},
	}
	h.ns.Run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "x0")
	h.ns.Run("ip", "address", "add", h.live.Addresses[0].String(), "dev", "lo")
	h.cfg = Config{
		NodeName: name, Lane: overlay.WireGuard, LanePort: overlay.DefaultBasePort, Uplinks: []string{"up0"}, StateDir: dir, Kubeconfig: h.config,
		ExpiredGrace: keymgr.DefaultGrace, RotationPeriod: 24 * time.Hour, PostQuantum: keymgr.PSKRequired, PairingPort: nettest.FreePort(t),
	}
	own := w.c.Identity(h.live.ID, filepath.Join(dir, "keys"))
	csr, err := own.CSR()
	if err == nil {
		err = own.SetCertificate(w.c.Issue(csr, h.live), w.c.Authority.Bundle())
	}
	if err != nil {
		t.Fatal(err)
	}
	key, err := own.WGKeys().Ensure()
	if err == nil {
		h.signed, err = own.Sign(identity.StatementInput{
			Keys: []identity.WGKey{key}, BasePort: h.cfg.LanePort, Endpoints: h.live.Addresses, PodCIDRs: h.live.PodCIDRs,
			PSK: h.cfg.PostQuantum, PSKPort: h.cfg.PairingPort,
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	h.boot()
	return h
}

// boot leaves the node with its disk and nothing else.
func (h *dwelling) boot() {
	h.town.t.Helper()
	if old := h.lanes; old != nil {
		for _, l := range old.plan.Tunnels {
			h.ns.Run("ip", "link", "delete", l.Device)
			h.town.cable.mu.Lock()
			for ends := range h.town.cable.ends {
				if ends[0] == old.public(l.Own) {
					delete(h.town.cable.ends, ends)
				}
			}
			h.town.cable.mu.Unlock()
		}
	}
	h.lanes = &fakeLanes{cable: h.town.cable, ns: h.ns, since: map[[2]keymgr.PublicKey]time.Time{}}
}

// apiServer makes the API server come or go.
func (w *town) apiServer(there bool) {
	w.t.Helper()
	if !there {
		w.api.Close()
		return
	}
	l, err := net.Listen("tcp", w.listen)
	if err != nil {
		w.t.Fatal(err)
	}
	w.listen = l.Addr().String()
	w.api = &httptest.Server{Listener: l, Config: &http.Server{Handler: http.HandlerFunc(w.answer), ReadHeaderTimeout: time.Second}}
	w.api.Start()
	w.t.Cleanup(w.api.Close)
	for _, h := range w.nodes {
		text := fmt.Sprintf("apiVersion: v1\nkind: Config\ncurrent-context: c\nclusters: [{name: c, cluster: {server: 'http://%s'}}]\ncontexts: [{name: c, context: {cluster: c}}]\n", w.listen)
		if err := os.WriteFile(h.config, []byte(text), 0o600); err != nil {
			w.t.Fatal(err)
		}
	}
}

// answer knows the three things that a daemon asks for at its start.
func (w *town) answer(out http.ResponseWriter, r *http.Request) {
	out.Header().Set("Content-Type", "application/json")
	if strings.HasSuffix(r.URL.Path, "/namespaces/kube-system") {
		fmt.Fprintf(out, `{"kind":"Namespace","apiVersion":"v1","metadata":{"name":"kube-system","uid":%q}}`, keytest.TrustDomain)
		return
	}
	for _, h := range w.nodes {
		if strings.HasSuffix(r.URL.Path, "/nodes/"+h.live.ID.Name) {
			fmt.Fprintf(out, `{"kind":"Node","apiVersion":"v1","metadata":{"name":%q,"uid":%q},"spec":{"podCIDRs":[%q]},"status":{"addresses":[{"type":"InternalIP","address":%q}]}}`,
				h.live.ID.Name, h.live.ID.UID, h.live.PodCIDRs[0], h.live.Addresses[0])
			return
		}
	}
	out.WriteHeader(http.StatusNotFound)
	fmt.Fprint(out, `{"kind":"Status","apiVersion":"v1","status":"Failure","reason":"NotFound","code":404}`)
}

// snapshot is what the API server has.
func (w *town) snapshot() cluster.Snapshot {
	s := cluster.Snapshot{NodeKeys: map[string]keymgr.Signed{}, Rotations: map[string]cluster.RotationRequest{}, Bundle: w.c.Authority.Bundle()}
	for _, h := range w.nodes {
		s.Nodes = append(s.Nodes, kube.Node{Name: h.live.ID.Name, UID: h.live.ID.UID, PodCIDRs: h.live.PodCIDRs, Addresses: h.live.Addresses, Created: h.live.Created})
		s.NodeKeys[h.live.ID.Name] = h.signed
	}
	return s
}

// everywhere does something on all nodes at once.
func (w *town) everywhere(what func(*dwelling) error) {
	w.t.Helper()
	var group errgroup.Group
	for _, h := range w.nodes {
		group.Go(func() error { return what(h) })
	}
	if err := group.Wait(); err != nil {
		w.t.Fatal(err)
	}
}

// start starts the part of the daemon that does not need eBPF.
func (h *dwelling) start() error {
	log := slog.New(slog.DiscardHandler)
	client, err := kube.NewClient(kube.Config{Kubeconfig: h.config})
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(h.town.t.Context())
	group, ctx := errgroup.WithContext(ctx)
	h.d = &daemon{cfg: h.cfg, log: log, links: h.ns.Handle(), client: cluster.New(client)}
	h.stop = func() {
		cancel()
		if err := group.Wait(); err != nil {
			h.town.t.Error(err)
		}
		client.Close()
	}
	h.d.state = readiness.New(h.d.parts()...)
	h.d.leases, err = ipam.Open(filepath.Join(h.cfg.StateDir, "ipam"), nil, ipam.Options{Grace: 1})
	if err != nil {
		return err
	}
	h.d.pods = podserver.New(podserver.Config{
		Leases: h.d.leases, Links: h.d.links, Datapath: fakeHost{}, Enforcer: noPolicies{}, State: h.d.state, Logger: log,
	})
	if h.d.checkpoint, err = h.d.begin(ctx); err != nil {
		return err
	}
	if h.d.keys, err = h.d.makeKeys(nil, silent{}); err != nil {
		return err
	}
	c := h.d.networkConfig()
	c.Datapath, c.Host, c.Lanes = fakeHost{}, fakeHost{}, h.lanes
	h.d.network = network.New(c)
	h.lanes.preshared, h.lanes.public = h.d.keys.Rotator.Preshared, func(g uint64) keymgr.PublicKey {
		for _, k := range h.d.keys.Trust.Identity().WGKeys().All() {
			if k.Generation == g {
				return k.Public
			}
		}
		return keymgr.PublicKey{}
	}
	group.Go(func() error { return h.d.keys.Rotator.Serve(ctx, h.cfg.PairingPort) })
	group.Go(func() error { return h.d.network.Run(ctx, h.watch) })
	group.Go(func() error { return h.d.checkpoint.Confirm(ctx, h.watch.news) })
	group.Go(func() error { return h.d.repairLeases(ctx, h.watch) })
	return nil
}

func (w *town) stop() {
	for _, h := range w.nodes {
		h.stop()
	}
}

func (w *town) eventually(what string, is func(*dwelling) error) {
	w.t.Helper()
	for deadline := time.Now().Add(time.Minute); ; {
		var errs []error
		for _, h := range w.nodes {
			if err := is(h); err != nil {
				errs = append(errs, fmt.Errorf("%s: %w; %v", h.live.ID.Name, err, h.d.state.Reasons()))
			}
		}
		if len(errs) == 0 {
			return
		}
		if time.Now().After(deadline) {
			w.t.Fatalf("not so after a minute: %s: %v", what, errors.Join(errs...))
		}
		time.Sleep(20 * time.Millisecond) // the fakes tell nobody
	}
}

// TestPrivilegedRebootWithoutAPIServer reboots all nodes while the API server is
// away. Lanes and preshared keys come back without it, and go on when it does.
func TestPrivilegedRebootWithoutAPIServer(t *testing.T) {
	if !inside(t, 2) {
		return
	}
	w := newTown(t, "a", "b")
	connected := func(h *dwelling) error { return h.lanes.connected(len(w.nodes) - 1) }
	w.everywhere((*dwelling).start)
	for _, h := range w.nodes {
		h.watch.see(w.snapshot(), true)
	}
	w.eventually("connected in the usual way", connected)
	w.eventually("a checkpoint is saved", func(h *dwelling) error {
		_, err := os.Stat(filepath.Join(h.cfg.StateDir, "checkpoint.json"))
		return err
	})
	w.stop()

	w.apiServer(false)
	for _, h := range w.nodes {
		h.boot()
		h.watch.see(cluster.Snapshot{}, false)
		h.lease()
	}
	w.everywhere((*dwelling).start)
	w.eventually("connected without the API server", connected)
	for _, h := range w.nodes {
		h.servesFromDisk()
	}

	// It comes back, and there is a new node.
	w.apiServer(true)
	now := w.snapshot()
	now.Nodes = append(now.Nodes, kube.Node{
		Name: "c", UID: "c-1", PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.77.0/24")}, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.77")},
	})
	for _, h := range w.nodes {
		h.watch.see(now, true)
	}
	w.eventually("the API server is followed", func(h *dwelling) error {
		v := h.d.network.View()
		return errors.Join(unless(!v.FromDisk, "from disk still"), unless(len(v.Peers) == 2, "the new node is not known"),
			unless(len(h.d.leases.Leases()) == 0, "the lease of nobody is there still"))
	})
	for _, h := range w.nodes {
		if err := h.lanes.connected(1); err != nil || len(h.lanes.lost) > 0 {
			t.Errorf("node %s: %v; taken away: %v", h.live.ID.Name, err, h.lanes.lost)
		}
		if why := strings.Join(h.d.state.Reasons(), "\n"); strings.Contains(why, "away") {
			t.Errorf("node %s: still said to be away: %s", h.live.ID.Name, why)
		}
	}
	w.stop()
}

func unless(fine bool, otherwise string) error {
	if fine {
		return nil
	}
	return errors.New(otherwise)
}

// lease lets the node have a pod that only the API server can tell to be gone.
func (h *dwelling) lease() {
	t := h.town.t
	t.Helper()
	leases, err := ipam.Open(filepath.Join(h.cfg.StateDir, "ipam"), h.live.PodCIDRs, ipam.Options{})
	if err == nil {
		_, err = leases.Allocate(ipam.Owner{ContainerID: "c1", IfName: "eth0"}, ipam.Meta{Namespace: "default", Name: "p", UID: "u"})
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (h *dwelling) servesFromDisk() {
	t := h.town.t
	t.Helper()
	name := h.live.ID.Name
	if v := h.d.network.View(); v == nil || !v.FromDisk || v.Self.UID != h.live.ID.UID {
		t.Errorf("node %s: view %+v", name, v)
	}
	if _, err := h.d.state.PodMTU(); !errors.Is(err, cni.ErrNotReady) || !strings.Contains(err.Error(), checkpoint.ErrFromDisk.Error()) {
		t.Errorf("node %s connects pods: %v", name, err)
	}
	if n := len(h.d.leases.Leases()); n != 1 {
		t.Errorf("node %s: %d leases, want the one of before", name, n)
	}
	if last, _ := h.d.keys.Trust.Identity().Last(); !last.Equal(h.signed) {
		t.Errorf("node %s signed something that nobody can see", name)
	}
}

// noPolicies is an enforcer of no pods.
type noPolicies struct{ podserver.Enforcer }

func (noPolicies) Detach([]netip.Addr) {}

// silent tells nobody.
type silent struct{}

func (silent) Event(context.Context, kube.EventSpec) {}
