// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/revocation"
)

const (
	// minPause and maxPause bound the time to the next pass after one that
	// failed. It doubles with each failure.
	minPause = time.Second
	maxPause = time.Minute
	// crlPeriod is the time between checks of the CRL when nothing changes.
	crlPeriod = 10 * time.Minute
	// callTimeout bounds one pass.
	callTimeout = 30 * time.Second
)

// Requests lists the certificate requests, as a cache shows them.
type Requests interface {
	Requests() (all []kube.Request, complete bool)
}

// Cluster shows nodes, NodeKeys, orders to revoke and the published list, as a
// cache shows them.
type Cluster interface {
	Snapshot() (s cluster.Snapshot, complete bool)
}

// Signer signs revocation lists with the key of the CA.
type Signer interface {
	// SignRevocations signs the list that nodes read.
	SignRevocations(l keymgr.RevocationList) (keymgr.Signed, error)
	// Signs reports whether the issuer that signs now has signed a list.
	Signs(s keymgr.Signed) bool
	// RenewCRL returns a CRL for l: old, as long as old is valid and complete.
	RenewCRL(old []byte, l keymgr.RevocationList) ([]byte, error)
	// Bundle returns the trusted roots in PEM.
	Bundle() []byte
}

// Publisher publishes the list and reports on orders.
type Publisher interface {
	PublishRecord(ctx context.Context, r cluster.RevocationRecord) (cluster.RevocationRecord, error)
	ReportRevocation(ctx context.Context, r cluster.Revocation) error
	Node(ctx context.Context, name string) (kube.Node, error)
	DeleteNodeKey(ctx context.Context, name, nodeUID string) error
}

// EventRecorder creates Events for operators.
type EventRecorder interface {
	Event(ctx context.Context, e kube.EventSpec)
}

// Config is what a Revoker works with. All fields are required.
type Config struct {
	Requests    Requests
	Cluster     Cluster
	Signer      Signer
	Store       Store
	Publisher   Publisher
	Events      EventRecorder
	State       *State
	TrustDomain string
	Lifetime    time.Duration // the longest lifetime of a node certificate
	Metrics     *Metrics
	Failures    prometheus.Counter // counts passes that failed
	Log         *slog.Logger
	Clock       func() time.Time
}

// Revoker keeps the published revocation list as orders and deleted nodes require.
// It belongs to one term of a leader and runs beside the signer, so that no queue
// of certificate requests delays it.
type Revoker struct {
	Config
	// changed has room for one value; a value asks for a pass.
	changed chan struct{}
	// last is what this leader published last. It is newer than what the cache
	// shows, and cannot be replaced from outside by an older list.
	last published
	// loaded is set once last is at least as new as the stored list, whose number
	// is storedNumber.
	loaded       bool
	storedNumber uint64
	// ahead is the highest number from the future that was given up. If it is this
	// controller's clock that was behind, nodes know that number, and wait for a higher one.
	ahead uint64
}

// New returns a Revoker that has published nothing yet.
func New(cfg Config) *Revoker { return &Revoker{Config: cfg, changed: make(chan struct{}, 1)} }

// Changes returns a channel with room for one value. Send a value, without
// blocking, when the requests or the cluster have changed.
func (r *Revoker) Changes() chan<- struct{} { return r.changed }

// published is a verified record.
type published struct {
	record cluster.RevocationRecord
	signed keymgr.Signed
	list   keymgr.RevocationList
	// replaced is the version that the record replaced. It is nil once the cache
	// shows the record itself.
	replaced *string
}

// wake asks for one more pass.
func (r *Revoker) wake() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// Run makes passes until ctx ends: after each change, soon after a pass that
// failed, and every 10 minutes.
func (r *Revoker) Run(ctx context.Context) {
	pause := minPause
	for ctx.Err() == nil {
		next := crlPeriod
		if err := r.pass(ctx); err != nil && ctx.Err() == nil {
			r.Failures.Inc()
			r.Log.Warn("cannot update revocations; retrying", keyError, err)
			next, pause = pause, min(2*pause, maxPause)
		} else {
			pause = minPause
		}
		timer := time.NewTimer(next)
		select {
		case <-ctx.Done():
		case <-r.changed:
		case <-timer.C:
		}
		timer.Stop()
	}
}

// pass publishes the required list, if it is not published yet, and then reports
// what it has done.
func (r *Revoker) pass(ctx context.Context) error {
	snapshot, complete := r.Cluster.Snapshot()
	requests, all := r.Requests.Requests()
	if !complete || !all {
		return nil // a notification follows when the first lists are complete
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	if err := r.loadStored(ctx); err != nil {
		return err
	}
	now := r.Clock()
	before := r.inForce(snapshot.Revoked, now)
	if keymgr.CheckNumber(before.list.Number, now) != nil {
		r.ahead = max(r.ahead, before.list.Number)
	}
	facts, unlisted, err := r.facts(ctx, before.list, snapshot, requests)
	if err != nil {
		return err
	}
	next, news, err := revocation.Next(before.list, facts)
	if err != nil {
		return err
	}
	r.State.Decide(next)
	after, err := r.write(ctx, before, next, news.Changed)
	if errors.Is(err, kube.ErrConflict) {
		r.Log.Debug("revocation list changed in the meantime", keyError, err)
		return nil // the change is notified
	}
	if err != nil {
		return err
	}
	for _, id := range news.Crowded {
		unlisted[id.UID] = true
	}
	r.last = after
	r.State.Publish(after.list, unlisted)
	r.Metrics.set(after.list)
	r.report(ctx, news, snapshot)
	return errors.Join(r.store(ctx), r.reportOrders(ctx, snapshot.Orders, after.list), r.removeRevokedNodeKeys(ctx, snapshot, after.list))
}

// inForce returns the newest list that this leader knows to be authentic. Of a
// record that cannot be verified, only the version to replace counts.
func (r *Revoker) inForce(record cluster.RevocationRecord, now time.Time) published {
	if record.Version == r.last.record.Version && r.last.list.Number > 0 {
		r.last.replaced = nil
		return r.last
	}
	if r.last.replaced != nil && *r.last.replaced == record.Version {
		return r.last // the cache is behind
	}
	p := published{record: record}
	var err error
	if p.signed, err = keymgr.DecodeSigned(record.List); err == nil {
		p.list, err = keymgr.VerifyRevocations(p.signed, r.Signer.Bundle(), r.TrustDomain, now)
	}
	if err == nil {
		err = keymgr.CheckNumber(p.list.Number, now)
	}
	switch {
	case err != nil && record.Version != "":
		r.Log.Error("the published revocation list is not authentic; replacing it", keyError, err)
	case err == nil && (p.list.Number >= r.last.list.Number || keymgr.CheckNumber(r.last.list.Number, now) != nil):
		return p
	}
	p.signed, p.list = r.last.signed, r.last.list
	p.record.List, p.record.CRL = nil, r.last.record.CRL
	return p
}

// write publishes next with its CRL unless both are published already. It signs a
// list again that another issuer has signed, so that readers can forget that one, or that
// was signed with the clock behind.
func (r *Revoker) write(ctx context.Context, before published, next keymgr.RevocationList, changed bool) (published, error) {
	after := before
	behind := next.Number <= r.ahead && keymgr.CheckNumber(r.ahead, r.Clock()) == nil
	if behind || !changed && !r.Signer.Signs(before.signed) {
		next.Number = revocation.Number(max(next.Number, r.ahead), r.Clock())
		next.IssuedAt = r.Clock().UTC().Truncate(time.Second)
		changed = true
	}
	after.list = next
	var err error
	if changed {
		if after.signed, err = r.Signer.SignRevocations(next); err != nil {
			return published{}, err
		}
	}
	if after.record.List, err = keymgr.EncodeSigned(after.signed); err != nil {
		return published{}, err
	}
	if after.record.CRL, err = r.Signer.RenewCRL(before.record.CRL, next); err != nil {
		// Nodes do not need the CRL. Whoever does sees the old one expire.
		r.Log.Error("cannot renew the CRL; keeping the old one", keyError, err)
		after.record.CRL = before.record.CRL
	}
	if bytes.Equal(after.record.List, before.record.List) && bytes.Equal(after.record.CRL, before.record.CRL) {
		return after, nil
	}
	after.record, err = r.Publisher.PublishRecord(ctx, after.record)
	after.replaced = &before.record.Version
	return after, err
}
