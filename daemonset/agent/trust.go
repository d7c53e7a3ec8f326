// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
)

const (
	// requestTimeout bounds the wait for one certificate; then it is asked again.
	requestTimeout = 2 * time.Minute
	// identityCheck is how often certificate and statement are looked at when
	// nothing asks for it: well within the shortest life, of ten minutes.
	identityCheck = time.Minute
	retryLeast    = time.Second
	retryMost     = 30 * time.Second
)

// errNoLanes is a daemon that has just started: peers may know of a key only when
// its lanes are there to receive.
var errNoLanes = errors.New("waiting for this node's lanes")

// errNoBundle is a cluster whose controller has not made a CA yet.
var errNoBundle = errors.New("no trust bundle yet: is the sealane-controller running?")

// authority is what the identity loop asks of the cluster.
type authority interface {
	RequestCertificate(context.Context, kube.CertificateRequest) ([][]byte, error)
	PublishNodeKey(context.Context, keymgr.NodeID, keymgr.Signed) error
	OverwriteNodeKey(context.Context, keymgr.NodeID, keymgr.Signed) error
}

// wanted is what the identity should say, as of the newest snapshot.
type wanted struct {
	self      kube.Node
	bundle    []byte
	window    []byte        // in which to renew after a change of roots, as published
	nodes     int           // in the cluster
	published keymgr.Signed // the NodeKey of this node as the API server has it
	// publish and revoke are the key generations that the statement should list;
	// nothing is signed before the first lanes are up.
	publish, revoke []uint64
}

// trust keeps this node's identity fresh, and judges that of others.
type trust struct {
	cfg      Config
	identity *keymgr.Identity
	verifier *keymgr.Verifier
	docket   *docket
	judge    *judge
	cluster  authority
	events   reporter
	state    *state
	log      *slog.Logger

	clock      func() time.Time
	rest       time.Duration // until the next look, if all is well
	distrusted time.Time     // since when the certificate leads to no trusted root

	changed chan struct{} // the identity changed: the network loop should look
	poked   chan struct{}

	mu   sync.Mutex // guards want
	want *wanted
}

func signal(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default: // one is waiting already
	}
}

// follow takes over what a snapshot says of this node and of whom to trust.
func (t *trust) follow(self kube.Node, snap kube.Snapshot) error {
	if err := t.know(self, snap); err != nil {
		return err
	}
	t.mu.Lock()
	next := wanted{self: self, bundle: snap.Bundle, window: snap.Trust.Renewal, nodes: len(snap.Nodes), published: snap.NodeKeys[self.Name]}
	if t.want != nil {
		next.publish, next.revoke = t.want.publish, t.want.revoke
	}
	t.want = &next
	t.mu.Unlock()
	signal(t.poked)
	return nil
}

// know is follow for what is said of others. It leaves this node's identity as it is.
func (t *trust) know(self kube.Node, snap kube.Snapshot) error {
	t.verifier.SetSelf(t.identity.WGKeys().Publics(), self.PodCIDRs)
	if bundle := snap.Bundle; len(bundle) > 0 {
		if err := t.identity.SaveBundle(bundle); err != nil {
			return fmt.Errorf("keep trust bundle: %w", err)
		}
		if err := t.verifier.SetRoots(bundle); err != nil {
			return err
		}
	}
	t.docket.follow(snap.Revoked)
	return nil
}

// list says which of this node's keys its statement should list, once what peers
// then do will work.
func (t *trust) list(publish, revoke []uint64) {
	t.mu.Lock()
	next := *t.want
	next.publish, next.revoke = publish, revoke
	t.want = &next
	t.mu.Unlock()
	signal(t.poked)
}

// run keeps certificate and statement fresh until ctx ends.
func (t *trust) run(ctx context.Context) error {
	retry := retryLeast
	timer := time.NewTimer(identityCheck)
	poked := t.poked
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-poked:
		case <-timer.C:
		}
		t.mu.Lock()
		want := t.want
		t.mu.Unlock()
		if want == nil {
			continue
		}
		err := t.refresh(ctx, want)
		if ctx.Err() != nil {
			return nil
		}
		t.state.report(partKeys, err)
		poked = t.poked
		if tooOften(err) {
			poked = nil // to ask again whenever there are news would make it worse
		}
		if err == nil {
			retry = retryLeast
			timer.Reset(t.rest)
			continue
		}
		if !errors.Is(err, errNoLanes) {
			t.log.Error("identity not fresh", "error", err, "retry", retry)
		}
		timer.Reset(retry)
		retry = min(2*retry, retryMost)
	}
}

// tooOften tells whether the controller has denied a certificate because this
// node asks for too many.
func tooOften(err error) bool {
	var denied *kube.DeniedError
	return errors.As(err, &denied) && denied.Reason == string(ca.ReasonRateLimit)
}

func (t *trust) refresh(ctx context.Context, w *wanted) error {
	if len(w.bundle) == 0 {
		return errNoBundle
	}
	if err := t.standing(ctx); err != nil {
		return err
	}
	why, rest := t.needsCertificate(w)
	if t.rest = rest; why == "" {
		return t.speak(ctx, w)
	}
	t.rest = identityCheck
	var early error
	if t.identity.Serves(w.bundle, w.self.PodCIDRs) { // while the controller may be away for days
		early = t.speak(ctx, w)
	}
	if err := t.renew(ctx, w, why); err != nil {
		return errors.Join(err, early)
	}
	signal(t.changed)
	return t.speak(ctx, w)
}

// speak makes sure that what this node has to say is signed and published.
func (t *trust) speak(ctx context.Context, w *wanted) error {
	in := keymgr.StatementInput{
		Keys: t.identity.WGKeys().Only(w.publish), RevokedGens: w.revoke, BasePort: t.cfg.LanePort,
		Endpoints: w.self.Addresses, PodCIDRs: w.self.PodCIDRs, PSK: t.cfg.PostQuantum, PSKPort: t.cfg.PairingPort,
	}
	if len(in.Keys) == 0 {
		return errNoLanes
	}
	if why := t.identity.NeedsStatement(in); why != "" {
		if _, err := t.identity.Sign(in); err != nil {
			return err
		}
		t.log.Info("statement signed", "why", why, "generations", w.publish)
	}
	return t.publish(ctx, w, in)
}

func (t *trust) renew(ctx context.Context, w *wanted, why string) error {
	csr, err := t.identity.CSR()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	chain, err := t.cluster.RequestCertificate(ctx, kube.CertificateRequest{Node: t.identity.Node(), CSR: csr, Validity: t.cfg.CertificateLifetime})
	if errors.Is(err, kube.ErrDenied) {
		t.warn(ctx, "CertificateDenied", err)
	}
	if err != nil {
		return fmt.Errorf("request certificate: %w", err)
	}
	if err := t.identity.SetCertificate(chain, w.bundle); err != nil {
		return fmt.Errorf("use new certificate: %w", err)
	}
	info, _ := t.identity.Certificate()
	t.log.Info("certificate issued", "why", why, "serial", info.Serial, "not_after", info.NotAfter, "renew_at", t.identity.RenewAt())
	return nil
}

// publish makes the NodeKey carry the newest statement. An object that claims
// to be newer was written by somebody else, or this node's disk was set back;
// either way a statement signed now takes its place.
func (t *trust) publish(ctx context.Context, w *wanted, in keymgr.StatementInput) error {
	last, ok := t.identity.Last()
	if !ok || last.Equal(w.published) {
		return nil
	}
	err := t.cluster.PublishNodeKey(ctx, t.identity.Node(), last)
	if !errors.Is(err, kube.ErrNewer) && !errors.Is(err, kube.ErrFork) {
		return err
	}
	t.warn(ctx, "NodeKeyOverwritten", err)
	if last, err = t.identity.Sign(in); err != nil {
		return err
	}
	return t.cluster.OverwriteNodeKey(ctx, t.identity.Node(), last)
}

func (t *trust) warn(ctx context.Context, reason string, err error) {
	node := t.identity.Node()
	t.log.Warn("identity", "reason", reason, "error", err)
	t.events.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: node.Name, UID: node.UID, Type: kube.EventWarning, Reason: reason, Message: err.Error(),
	})
}

// privateKey hands the WireGuard backend the key of a device slot.
func (t *trust) privateKey(generation uint64) (keymgr.PrivateKey, bool) {
	if keys := t.identity.WGKeys().Only([]uint64{generation}); len(keys) > 0 {
		return keys[0].Private, true
	}
	return keymgr.PrivateKey{}, false
}
