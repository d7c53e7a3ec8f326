// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controllertest

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"sync"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
)

// TrustDomain is the trust domain of the world's cluster.
const TrustDomain = "cluster-uid"

const agentDaemonSet = "sealane-agent"

// ErrAway is the error of an API server that cannot be reached, for [World.Set].
var ErrAway = errors.New("api server is away")

// World is an API server as the controller sees it. Nothing is cached: every
// change is visible at once. Tests read and change its fields.
type World struct {
	t           *testing.T
	Now         time.Time
	Nodes       map[string]kube.Node
	Pods        map[string]kube.Pod
	DaemonSet   string // the UID of the agents' DaemonSet; empty if there is none
	AllRequests []kube.Request
	asked       int
	NodeKeys    map[string]keymgr.Signed
	Claims      map[string]string // by node name, the UID that its NodeKey names
	Bundle      []byte
	Trust       cluster.Trust // without the bundle
	Reports     map[string]string
	Events      []kube.EventSpec
	Verdicts    map[string]kube.Verdict
	News        chan struct{}
	Writes      int // calls that changed something
	Orders      []cluster.Revocation
	Record      cluster.RevocationRecord
	APIServer   []netip.Addr

	mu      sync.Mutex // guards what tests change while a loop runs
	fail    error      // of every call, if set
	listing bool       // the first lists are not complete yet
}

// NewWorld returns an API server without nodes.
func NewWorld(t *testing.T) *World {
	return &World{
		t: t, Now: time.Now(), DaemonSet: "ds",
		Nodes: map[string]kube.Node{}, Pods: map[string]kube.Pod{},
		NodeKeys: map[string]keymgr.Signed{}, Claims: map[string]string{},
		Verdicts: map[string]kube.Verdict{}, News: make(chan struct{}, 1),
	}
}

// Set changes what calls answer from now on: all fail with fail unless it is nil,
// and the first lists are incomplete while listing is set.
func (w *World) Set(fail error, listing bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.fail, w.listing = fail, listing
}

func (w *World) failing() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.fail
}

func (w *World) isListing() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.listing
}

// AddNode adds a node with its agent's pod.
func (w *World) AddNode(name, uid, podCIDR string) {
	w.Nodes[name] = kube.Node{Name: name, UID: uid, PodCIDRs: []netip.Prefix{netip.MustParsePrefix(podCIDR)}}
	w.Pods["agent-"+name] = kube.Pod{
		Namespace: kube.DefaultNamespace, Name: "agent-" + name, UID: "pod-" + uid, Node: name,
		ServiceAccount: kube.AgentServiceAccount, ControllerKind: "DaemonSet", ControllerUID: "ds",
	}
}

// NewKey returns a private key.
func NewKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// Ask adds a request as the API server shows it when the agent of the node asks
// for itself, and returns its name.
func (w *World) Ask(node string, key *ecdsa.PrivateKey) string {
	w.t.Helper()
	n := w.Nodes[node]
	id := n.ID()
	template := &x509.CertificateRequest{URIs: []*url.URL{id.URI(TrustDomain)}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, key)
	if err != nil {
		w.t.Fatal(err)
	}
	name := fmt.Sprintf("sealane-%s.%d", node, w.asked)
	w.asked++
	w.AllRequests = append(w.AllRequests, kube.Request{
		Name: name, UID: "uid-" + name, Created: w.Now, Signer: kube.SignerName,
		Username: "system:serviceaccount:sealane-system:sealane-agent",
		Extra: map[string][]string{
			approval.ExtraNodeName: {n.Name}, approval.ExtraNodeUID: {n.UID},
			approval.ExtraPodName: {"agent-" + node}, approval.ExtraPodUID: {"pod-" + n.UID},
		},
		CSR:      pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
		Usages:   []string{"digital signature", "client auth", "server auth"},
		Validity: 24 * time.Hour,
	})
	return name
}

// Flood adds requests as the thief of an agent's token makes them.
func (w *World) Flood(like kube.Request, n int) {
	for range n {
		w.asked++
		like.Name, like.Created = fmt.Sprintf("sealane-x.%d", w.asked), w.Now
		like.UID = "uid-" + like.Name
		w.AllRequests = append(w.AllRequests, like)
	}
}

// Request returns the request of the given name, for changing it.
func (w *World) Request(name string) *kube.Request {
	for i := range w.AllRequests {
		if w.AllRequests[i].Name == name {
			return &w.AllRequests[i]
		}
	}
	w.t.Fatalf("there is no request %s", name)
	return nil
}

// Publish makes a node publish the certificate that it got.
func (w *World) Publish(node string, certificate []byte) {
	w.t.Helper()
	chain, err := keymgr.DecodeChain(certificate)
	if err != nil {
		w.t.Fatal(err)
	}
	w.NodeKeys[node] = keymgr.Signed{Chain: chain}
	w.Claims[node] = w.Nodes[node].UID
}

// Order adds an order to revoke a node.
func (w *World) Order(node string, reason keymgr.RevocationReason) {
	n := w.Nodes[node]
	w.Orders = append(w.Orders, cluster.Revocation{
		Name: n.UID, UID: "order-" + n.UID, Node: n.ID(), Reason: reason, Message: "as ordered",
	})
}

// EventReasons returns reason and object of each Event.
func (w *World) EventReasons() []string {
	var out []string
	for _, e := range w.Events {
		out = append(out, e.Reason+" "+e.Name)
	}
	return out
}

// Settle repeats pass until it writes nothing any more.
func (w *World) Settle(pass func(context.Context) error) {
	w.t.Helper()
	for range 10 {
		before := w.Writes
		if err := pass(w.t.Context()); err != nil {
			w.t.Fatal(err)
		}
		if w.Writes == before {
			return
		}
	}
	w.t.Fatal("passes never came to rest")
}

// Certificate returns the certificate that a request was answered with. It fails
// the test if there is none, or none of a root in bundle.
func (w *World) Certificate(name string, bundle []byte) keymgr.NodeCertificate {
	w.t.Helper()
	chain, err := keymgr.DecodeChain(w.Request(name).Certificate)
	if err != nil {
		w.t.Fatalf("request %s: %v; verdict %+v", name, err, w.Verdicts[name])
	}
	cert, err := keymgr.VerifyCertificate(chain, bundle, w.Now)
	if err != nil {
		w.t.Fatal(err)
	}
	return cert
}
