// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
)

const testDomain = "cluster-uid"

// world is an API server as far as the controller looks at it: everything is
// there at once, nothing is cached.
type world struct {
	t         *testing.T
	now       time.Time
	nodes     map[string]kube.Node
	pods      map[string]kube.Pod
	daemonSet string
	requests  []kube.Request
	asked     int
	keys      map[string]keymgr.Signed
	claims    map[string]string
	bundle    []byte
	trust     kube.Trust // without the bundle
	reports   map[string]string
	events    []kube.EventSpec
	verdicts  map[string]kube.Verdict
	changed   chan struct{}
	writes    int
	orders    []kube.Revocation
	record    kube.RevocationRecord

	mu      sync.Mutex // guards what tests change while a worker runs
	fail    error      // of every call, if set
	listing bool       // the first lists are not there yet
}

func newWorld(t *testing.T) *world {
	return &world{
		t: t, now: time.Now(), daemonSet: "ds",
		nodes: map[string]kube.Node{}, pods: map[string]kube.Pod{},
		keys: map[string]keymgr.Signed{}, claims: map[string]string{},
		verdicts: map[string]kube.Verdict{}, changed: make(chan struct{}, 1),
	}
}

// set changes what calls answer from now on.
func (w *world) set(fail error, listing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail, w.listing = fail, listing
}

func (w *world) failing() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail
}

func (w *world) isListing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listing
}

// addNode makes a node with its agent's pod.
func (w *world) addNode(name, uid, podCIDR string) {
	w.nodes[name] = kube.Node{Name: name, UID: uid, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(podCIDR)}}
	w.pods["agent-"+name] = kube.Pod{
		Namespace: kube.DefaultNamespace, Name: "agent-" + name, UID: "pod-" + uid, Node: name,
		ServiceAccount: kube.AgentServiceAccount, ControllerKind: "DaemonSet", ControllerUID: "ds",
	}
}

func newKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// ask makes a request as the API server shows it when the agent of the node
// asks for itself, and returns its name.
func (w *world) ask(node string, key *ecdsa.PrivateKey) string {
	w.t.Helper()
	n := w.nodes[node]
	id := keymgr.NodeID{Name: n.Name, UID: n.UID}
	template := &x509.CertificateRequest{URIs: []*url.URL{id.URI(testDomain)}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		w.t.Fatal(err)
	}
	name := fmt.Sprintf("sealane-%s.%d", node, w.asked)
	w.asked++
	w.requests = append(w.requests, kube.Request{
		Name: name, UID: "uid-" + name, Created: w.now, Signer: kube.SignerName,
		Username: "system:serviceaccount:sealane-system:sealane-agent",
		Extra: map[string][]string{
			ca.ExtraNodeName: {n.Name}, ca.ExtraNodeUID: {n.UID},
			ca.ExtraPodName: {"agent-" + node}, ca.ExtraPodUID: {"pod-" + n.UID},
		},
		CSR:      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		Usages:   []string{"digital signature", "client auth", "server auth"},
		Validity: 24 * time.Hour,
	})
	return name
}

func (w *world) request(name string) *kube.Request {
	for i := range w.requests {
		if w.requests[i].Name == name {
			return &w.requests[i]
		}
	}
	w.t.Fatalf("there is no request %s", name)
	return nil
}

func (w *world) Node(_ context.Context, name string) (kube.Node, error) {
	return lookUp(w, w.nodes, name)
}

func (w *world) Pod(_ context.Context, _, name string) (kube.Pod, error) {
	return lookUp(w, w.pods, name)
}

func (w *world) DaemonSetUID(_ context.Context, name string) (string, error) {
	return lookUp(w, map[string]string{AgentDaemonSet: w.daemonSet}, name)
}

func lookUp[T any](w *world, in map[string]T, name string) (out T, err error) {
	if err := w.failing(); err != nil {
		return out, err
	}
	found, ok := in[name]
	if !ok {
		return out, kube.ErrNotFound
	}
	return found, nil
}

func (w *world) decide(r kube.Request, v kube.Verdict, change func(*kube.Request)) error {
	if err := w.failing(); err != nil {
		return err
	}
	w.writes++
	change(w.request(r.Name))
	w.verdicts[r.Name] = v
	return nil
}

func (w *world) ApproveRequest(_ context.Context, r kube.Request, v kube.Verdict) error {
	return w.decide(r, v, func(r *kube.Request) { r.Approved = true })
}

func (w *world) DenyRequest(_ context.Context, r kube.Request, v kube.Verdict) error {
	return w.decide(r, v, func(r *kube.Request) { r.Denied = true })
}

func (w *world) FailRequest(_ context.Context, r kube.Request, v kube.Verdict) error {
	return w.decide(r, v, func(r *kube.Request) { r.Failed = true })
}

func (w *world) AnswerRequest(_ context.Context, r kube.Request, chain [][]byte) error {
	if !w.request(r.Name).Approved {
		return kube.ErrNotApproved
	}
	return w.decide(r, w.verdicts[r.Name], func(r *kube.Request) { r.Certificate = keymgr.EncodeChain(chain) })
}

func (w *world) Event(_ context.Context, e kube.EventSpec) { w.events = append(w.events, e) }

func (w *world) DeleteNodeKey(_ context.Context, name, nodeUID string) error {
	if err := w.failing(); err != nil {
		return err
	}
	if w.claims[name] == nodeUID {
		delete(w.claims, name)
		delete(w.keys, name)
	}
	return nil
}

func (w *world) PublishTrust(_ context.Context, t kube.Trust) error {
	if err := w.failing(); err != nil {
		return err
	}
	w.writes++
	w.bundle = slices.Clone(t.Bundle)
	t.Bundle, t.Request = nil, w.trust.Request
	w.trust = t
	return nil
}

func (w *world) Changed() <-chan struct{}         { return w.changed }
func (w *world) Requests() ([]kube.Request, bool) { return slices.Clone(w.requests), !w.isListing() }

func (w *world) Snapshot() (kube.Snapshot, bool) {
	s := kube.Snapshot{
		NodeKeys: w.keys, Claims: w.claims, Reports: w.reports, Trust: w.trust, Bundle: bytes.TrimSpace(w.bundle),
		Revoked: w.record, Orders: slices.Clone(w.orders),
	}
	for _, node := range w.nodes {
		s.Nodes = append(s.Nodes, node)
	}
	return s, !w.isListing()
}

// publish makes a node publish the certificate that it was given.
func (w *world) publish(node string, certificate []byte) {
	w.t.Helper()
	chain, err := keymgr.DecodeChain(certificate)
	if err != nil {
		w.t.Fatal(err)
	}
	w.keys[node] = keymgr.Signed{Chain: chain}
	w.claims[node] = w.nodes[node].UID
}

func newTestWorker(t *testing.T, w *world) *worker {
	t.Helper()
	clock := func() time.Time { return w.now }
	authority, err := ca.Open(t.Context(), ca.Config{
		TrustDomain: testDomain, Store: ca.NewMemoryStore(), RootStore: ca.NewMemoryStore(), Clock: clock,
	})
	if err != nil {
		t.Fatal(err)
	}
	metrics, err := newMetrics(prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	log, none := slog.New(slog.DiscardHandler), newRegister()
	none.decide(keymgr.RevocationList{})
	return &worker{
		authority: authority, requests: w, cluster: w, publisher: w,
		signer: &signer{
			facts: w, desk: w, report: w, issuer: authority, history: newHistory(), revoked: none,
			policy: ca.Policy{
				TrustDomain: testDomain, Namespace: kube.DefaultNamespace, ServiceAccount: kube.AgentServiceAccount, MaxPerHour: 3,
			},
			metrics: metrics, log: log, clock: clock,
		},
		collector: &collector{registry: w, register: none, metrics: metrics, log: log},
		queue:     newQueue(), ledger: &ledger{}, health: newHealth(clock), metrics: metrics, log: log, clock: clock, mode: CASelf,
	}
}
