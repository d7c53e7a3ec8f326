// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"reflect"
	"sync"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/internal/backoff"
	"github.com/sealane/sealane/internal/signal"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/markstore"
	"github.com/sealane/sealane/keymgr/nodenet"
)

const (
	// requestTimeout bounds the wait for one certificate; then the request is repeated.
	requestTimeout = 2 * time.Minute
	// identityCheck is how often certificate and statement are checked when nothing
	// asks for it: well within the shortest lifetime, ten minutes.
	identityCheck = time.Minute
	retryLeast    = time.Second
	retryMost     = 30 * time.Second
)

// Cluster is what a Keeper asks of the API server. *cluster.Client is one.
type Cluster interface {
	RequestCertificate(context.Context, kube.CertificateRequest) ([][]byte, error)
	PublishNodeKey(context.Context, keymgr.NodeID, keymgr.Signed) error
	OverwriteNodeKey(context.Context, keymgr.NodeID, keymgr.Signed) error
}

// Events tells operators, as Kubernetes Events, what they must know.
type Events interface {
	Event(context.Context, kube.EventSpec)
}

// Config is what a Keeper is made of.
type Config struct {
	Dir         string // state folder: keys/ and peers/ lie in it
	Node        keymgr.NodeID
	TrustDomain string

	CertificateLifetime time.Duration // to ask for
	// ExpiredGrace is how long a peer's keys are used after what vouches for them
	// has expired; 0: not at all.
	ExpiredGrace     time.Duration
	StrictContinuity bool // refuse certificate keys that the one before does not vouch for
	// AcceptedRoots are hashes of root certificates that the operator vouches for when no
	// trusted root does.
	AcceptedRoots []keymgr.Hash

	LanePort    uint16 // first of the four UDP ports, as the statement says
	PostQuantum keymgr.PSKMode
	PairingPort uint16 // TCP, as the statement says
	// Rules says which addresses and pod ranges nodes can have; where the API server is
	// follows from snapshots.
	Rules nodenet.Rules

	Cluster Cluster
	Events  Events
	State   *readiness.State
	Logger  *slog.Logger
}

// wanted is what the identity should say, as of the newest snapshot.
type wanted struct {
	self      kube.Node
	rivals    []string      // UIDs of the other nodes that list an address of this one, sorted
	bundle    []byte        // in force
	refusal   string        // of the published bundle
	window    []byte        // in which to renew after a change of roots, as published
	revoked   []byte        // the published revocation list
	nodes     int           // in the cluster
	published keymgr.Signed // the NodeKey of this node as the API server has it
	// publish and revoke are the key generations that the statement should list.
	// Nothing is signed before the first lanes are up.
	publish, revoke []uint64
}

// Keeper keeps this node's identity fresh and verifies the other nodes'. Learn,
// Follow, SetKeys and Verify are for one goroutine; Run has its own; the rest is
// safe for concurrent use.
type Keeper struct {
	cfg         Config
	identity    *identity.Identity
	verifier    *keymgr.Verifier
	roots       *rootWatcher
	revocations *revocationWatcher
	peers       *peerVerifier
	log         *slog.Logger

	clock      func() time.Time
	rest       time.Duration // until the next check, if all is well
	asked      asked         // what the last certificate was requested for
	distrusted time.Time     // since when the certificate leads to no trusted root; zero: it does

	changed signal.Signal // the identity changed: the network loop should make a pass
	poked   signal.Signal // wakes Run

	mu   sync.Mutex // guards want
	want *wanted    // nil: nothing is known yet
}

// New opens the identity and the records of peers on disk. What an earlier daemon
// had accepted is verified again, so that a NodeKey that was spoilt meanwhile
// cuts nobody off.
func New(c Config) (*Keeper, error) {
	own, err := identity.Open(identity.Config{Dir: filepath.Join(c.Dir, "keys"), Node: c.Node, TrustDomain: c.TrustDomain})
	if err != nil {
		return nil, err
	}
	marks := markstore.New(filepath.Join(c.Dir, "peers"))
	v, err := keymgr.NewVerifier(keymgr.VerifierConfig{
		TrustDomain: c.TrustDomain, Self: c.Node, Marks: marks, Revocations: marks,
		Grace: c.ExpiredGrace, StrictContinuity: c.StrictContinuity, PSK: c.PostQuantum,
	})
	if err != nil {
		return nil, err
	}
	restored, err := restorePeers(own, v)
	if err != nil {
		c.Logger.Warn("some peers start without their last statement", "error", err)
	}
	return newKeeper(c, own, v, restored), nil
}

func newKeeper(c Config, own *identity.Identity, v *keymgr.Verifier, restored []keymgr.Peer) *Keeper {
	roots := &rootWatcher{identity: own, verifier: v, trustDomain: own.TrustDomain(), accepted: c.AcceptedRoots, clock: time.Now}
	return &Keeper{
		cfg: c, identity: own, verifier: v, roots: roots, revocations: &revocationWatcher{verifier: v},
		peers: newPeerVerifier(v, c.Events, c.Logger, restored), log: c.Logger,
		clock: time.Now, rest: identityCheck, changed: signal.New(), poked: signal.New(),
	}
}

func restorePeers(own *identity.Identity, v *keymgr.Verifier) ([]keymgr.Peer, error) {
	bundle, err := own.Bundle()
	if err != nil || len(bundle) == 0 {
		return nil, err
	}
	if err := v.SetRoots(bundle); err != nil {
		return nil, err
	}
	return v.Restore()
}

// Identity returns this node's identity.
func (k *Keeper) Identity() *identity.Identity { return k.identity }

// Authenticate returns whose certificate chain (DER, leaf first) is shown.
func (k *Keeper) Authenticate(chain [][]byte) (keymgr.NodeID, error) {
	return k.verifier.Authenticate(chain)
}

// Changed has a value when the identity has changed.
func (k *Keeper) Changed() <-chan struct{} { return k.changed }

// Remembered returns the records of all peers, and this node's last statement
// (zero: it has signed none).
func (k *Keeper) Remembered() ([]keymgr.Record, keymgr.Signed) {
	own, _ := k.identity.Last()
	return k.verifier.Remembered(), own
}

// PrivateKey returns the WireGuard key of one of this node's generations.
func (k *Keeper) PrivateKey(generation uint64) (keymgr.PrivateKey, bool) {
	if keys := k.identity.WGKeys().Only([]uint64{generation}); len(keys) > 0 {
		return keys[0].Private, true
	}
	return keymgr.PrivateKey{}, false
}

// RevocationNumber is the number of the revocation list in force, 0 if there is none.
func (k *Keeper) RevocationNumber() uint64 { return k.revocations.number() }

// Verify decides on every node of the snapshot but the one named self, and forgets
// the nodes that are gone.
func (k *Keeper) Verify(ctx context.Context, snap cluster.Snapshot, self string) []Result {
	return k.peers.verify(ctx, snap, self)
}

// Learn takes over what a snapshot says of other nodes: roots and revocations. It
// leaves this node's identity as it is. After an error the roots are those of before;
// revocations are followed all the same.
func (k *Keeper) Learn(self kube.Node, snap cluster.Snapshot) error {
	_, err := k.learn(self, snap)
	return err
}

// learn is Learn, and returns the trust bundle in force.
func (k *Keeper) learn(self kube.Node, snap cluster.Snapshot) ([]byte, error) {
	k.verifier.SetSelf(k.identity.WGKeys().Publics(), self.Live())
	rules := k.cfg.Rules
	rules.APIServer = snap.APIServer
	k.verifier.SetRules(rules)
	published := snap.Trust
	published.Bundle = snap.Bundle
	roots, err := k.roots.follow(published)
	k.revocations.follow(snap.Revoked) // by the new roots, if there are
	return roots, err
}

// Follow is Learn, and has Run bring this node's own identity in line with the
// snapshot.
func (k *Keeper) Follow(self kube.Node, snap cluster.Snapshot) error {
	roots, err := k.learn(self, snap)
	if err != nil {
		return err
	}
	k.update(func(w *wanted) {
		w.self, w.bundle, w.window, w.revoked = self, roots, snap.Trust.Renewal, snap.Revoked.List
		w.refusal = k.roots.pending()
		w.nodes, w.published = len(snap.Nodes), snap.NodeKeys[self.Name]
		w.rivals = rivals(self, snap.Nodes)
	})
	return nil
}

// SetKeys says which key generations this node's statement should list as usable
// and as revoked, once the lanes are ready for what peers then do.
func (k *Keeper) SetKeys(publish, revoke []uint64) {
	k.update(func(w *wanted) { w.publish, w.revoke = publish, revoke })
}

// update changes what is wanted. It wakes Run only if something differs, so that a
// pass that finds nothing new costs nothing there.
func (k *Keeper) update(change func(*wanted)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	var next wanted
	if k.want != nil {
		next = *k.want
	}
	change(&next)
	if k.want == nil || !reflect.DeepEqual(*k.want, next) {
		k.poked.Raise()
	}
	k.want = &next
}

// Run keeps certificate and statement fresh until ctx ends.
func (k *Keeper) Run(ctx context.Context) error {
	retry := backoff.Backoff{First: retryLeast, Max: retryMost}
	timer := time.NewTimer(identityCheck)
	poked := k.poked
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poked:
		case <-timer.C:
		}
		k.mu.Lock()
		want := k.want
		k.mu.Unlock()
		if want == nil {
			continue
		}
		err := k.refresh(ctx, want)
		if ctx.Err() != nil {
			return nil
		}
		k.cfg.State.Report(readiness.Keys, err)
		poked = k.poked
		if tooOften(err) {
			poked = nil // another request at each change in the cluster would make it worse
		}
		if err == nil {
			retry.Reset()
			timer.Reset(k.rest)
			continue
		}
		pause := retry.Next()
		if !errors.Is(err, errNoLanes) {
			k.log.Error("certificate or key statement is out of date", "error", err, "retry", pause)
		}
		timer.Reset(pause)
	}
}

// tooOften reports whether the controller has denied a certificate because this
// node asks for too many.
func tooOften(err error) bool {
	var denied *kube.DeniedError
	return errors.As(err, &denied) && denied.Reason == string(approval.ReasonRateLimit)
}

func (k *Keeper) warn(ctx context.Context, reason string, err error) {
	node := k.identity.Node()
	k.log.Warn("problem with this node's identity", "reason", reason, "error", err)
	k.cfg.Events.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: node.Name, UID: node.UID, Type: kube.EventWarning, Reason: reason, Message: err.Error(),
	})
}
