// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/internal/signal"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/renewal"
)

func TestNeedsCertificateForRoots(t *testing.T) {
	c := keytest.NewCluster(t)
	n := c.Node("a", "10.244.1.0/24")
	tr := newKeeper(Config{Events: &events{}, Logger: slog.New(slog.DiscardHandler)}, n.Identity, c.Verifier("self"), nil)
	tr.clock = c.Clock.Now
	w := &wanted{self: kube.Node{PodCIDRs: n.Live.PodCIDRs}, bundle: c.Authority.Bundle(), nodes: 3}
	check := func(what, why string, least, most time.Duration) {
		t.Helper()
		got, rest := tr.needsCertificate(w)
		if got != why || rest < least || rest > most {
			t.Errorf("%s: %q, rest %v, want %q and %v to %v", what, got, rest, why, least, most)
		}
	}
	check("all is well", "", identityCheck, identityCheck)

	window := renewal.Window{Root: "0a", From: c.Clock.Now().Add(20 * time.Second), To: c.Clock.Now().Add(25 * time.Second)}
	var err error
	if w.window, err = window.Encode(); err != nil {
		t.Fatal(err)
	}
	check("before the window", "", 20*time.Second, 25*time.Second)
	c.Clock.Add(25 * time.Second)
	check("after it", identity.NeedRoot, 0, 0)
	w.window = []byte("spoilt")
	check("a window that is none", "", identityCheck, identityCheck)

	w.window, w.bundle = nil, keytest.NewCluster(t).Authority.Bundle()
	check("another authority, few nodes", identity.NeedTrusted, 0, 0)
	w.nodes, tr.distrusted = 5000, time.Time{}
	_, rest := tr.needsCertificate(w)
	c.Clock.Add(renewal.Span(5000))
	check("another authority, many nodes, in the end", identity.NeedTrusted, 0, 0)
	if rest == 0 {
		t.Error("all of many nodes would ask at once")
	}
}

func TestWarningOfBrokenContinuity(t *testing.T) {
	c := keytest.NewCluster(t)
	a := c.Node("a", "10.244.1.0/24")
	told := &events{}
	j := newPeerVerifier(c.Verifier("self"), told, slog.New(slog.DiscardHandler), nil)
	j.clock = c.Clock.Now
	snap := cluster.Snapshot{
		Nodes:    []kube.Node{{Name: a.Live.ID.Name, UID: a.Live.ID.UID, PodCIDRs: a.Live.PodCIDRs, Addresses: a.Live.Addresses, Created: a.Live.Created}},
		NodeKeys: map[string]keymgr.Signed{"a": a.Sign()},
	}
	j.verify(t.Context(), snap, "self")
	c.Clock.Add(time.Minute)
	c.Certify(a)
	snap.NodeKeys["a"] = a.Sign()
	if j.verify(t.Context(), snap, "self"); len(*told) != 0 {
		t.Errorf("a plain renewal is a warning: %+v", *told)
	}
	c.Clock.Add(time.Minute)
	a.Identity = c.Identity(a.Live.ID, t.TempDir())
	c.Certify(a)
	snap.NodeKeys["a"] = a.Sign()
	for range 3 {
		if got := j.verify(t.Context(), snap, "self")[0]; got.Err != nil {
			t.Fatal(got.Err)
		}
	}
	if all := j.counts().continuityWarnings; len(all) != 1 || all[0].Count != 1 || len(*told) != 1 || (*told)[0].Reason != "ContinuityBroken" {
		t.Errorf("warnings %+v, events %+v; want one of each", all, *told)
	}
}

// TestStatementOvertakenByRoots: the news that a root is dropped come before the
// statement by which a node left it. An operator hears of it if that never comes.
func TestStatementOvertakenByRoots(t *testing.T) {
	c := keytest.NewCluster(t)
	a := c.Node("a", "10.244.1.0/24")
	told, v := &events{}, c.Verifier("self")
	j := newPeerVerifier(v, told, slog.New(slog.DiscardHandler), nil)
	j.clock = c.Clock.Now
	snap := cluster.Snapshot{
		Nodes:    []kube.Node{{Name: a.Live.ID.Name, UID: a.Live.ID.UID, PodCIDRs: a.Live.PodCIDRs, Addresses: a.Live.Addresses, Created: a.Live.Created}},
		NodeKeys: map[string]keymgr.Signed{"a": a.Sign()},
	}
	roots := func(bundle []byte) {
		t.Helper()
		if err := v.SetRoots(bundle); err != nil {
			t.Fatal(err)
		}
	}
	check := func(when string, want error, alarms int) {
		t.Helper()
		got := j.verify(t.Context(), snap, "self")[0]
		if !errors.Is(got.Err, want) || len(got.Peer.Keys) == 0 {
			t.Errorf("%s: %v with %d keys in force, want %v and the accepted ones", when, got.Err, len(got.Peer.Keys), want)
		}
		if refusals := j.counts().refusals; len(refusals) != alarms || len(*told) != alarms {
			t.Errorf("%s: refusals %+v, events %+v; want %d", when, refusals, *told, alarms)
		}
	}
	check("one root", nil, 0)
	old, next := c.Authority.Bundle(), keytest.NewCluster(t)
	roots(next.Authority.Bundle())
	check("root dropped", keymgr.ErrChain, 0)
	c.Clock.Add(overtakenFor / 2)
	roots(slices.Concat(old, next.Authority.Bundle()))
	check("the statement came", nil, 0)
	roots(next.Authority.Bundle())
	check("root dropped again", keymgr.ErrChain, 0)
	c.Clock.Add(overtakenFor - 1)
	check("for a while", keymgr.ErrChain, 0)
	c.Clock.Add(1)
	check("for good", keymgr.ErrChain, 1)
	check("told once", keymgr.ErrChain, 1)
}

// refusing is a cluster that denies every certificate.
type refusing struct {
	office
	reason approval.Reason
	asked  chan struct{}
}

func (r *refusing) RequestCertificate(_ context.Context, c kube.CertificateRequest) ([][]byte, error) {
	r.asked <- struct{}{}
	return nil, &kube.DeniedError{Request: c.Node.Name, Reason: string(r.reason), Message: "denied"}
}

// TestTooManyRequestsAreNotMadeMore: a node that is told that it asks too often
// waits, whatever happens in the cluster meanwhile.
func TestTooManyRequestsAreNotMadeMore(t *testing.T) {
	for reason, atOnce := range map[approval.Reason]bool{approval.ReasonRateLimit: false, approval.ReasonNodeRevoked: true} {
		k := newCourt(t)
		k.snap.Bundle = k.c.Authority.Bundle()
		desk := &refusing{reason: reason, asked: make(chan struct{}, 100)}
		k.keeper.cfg.Cluster = desk
		k.pass() // pokes
		synctest.Test(t, func(t *testing.T) {
			k.keeper.poked = signal.New()
			k.keeper.poked.Raise()
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- k.keeper.Run(ctx) }()
			synctest.Wait()
			k.keeper.poked.Raise()
			synctest.Wait()
			if got := len(desk.asked) == 2; got != atOnce || len(desk.asked) == 0 {
				t.Errorf("%s: asked %d times", reason, len(desk.asked))
			}
			time.Sleep(retryLeast)
			synctest.Wait()
			if len(desk.asked) < 2 {
				t.Errorf("%s: never asked again", reason)
			}
			cancel()
			if err := <-done; err != nil {
				t.Error(err)
			}
		})
	}
}

// away is an office whose controller answers nobody for a while.
type away struct {
	office
	controller bool
}

func (a *away) RequestCertificate(ctx context.Context, r kube.CertificateRequest) ([][]byte, error) {
	if a.controller {
		return nil, context.DeadlineExceeded
	}
	return a.office.RequestCertificate(ctx, r)
}

// TestStatementWithACertificateThatIsDue: what a node has to say does not wait for a
// controller that is away, as long as its certificate is good for readers.
func TestStatementWithACertificateThatIsDue(t *testing.T) {
	for name, tc := range map[string]struct {
		meanwhile func(*court)
		published bool
	}{
		"due":   {func(k *court) { k.c.Clock.Add(k.keeper.identity.RenewAt().Sub(k.c.Clock.Now())) }, true},
		"ended": {func(k *court) { k.c.Clock.Add(8 * 24 * time.Hour) }, false},
		"leads to no root": {func(k *court) {
			k.snap.Bundle = keytest.NewCluster(k.t).Authority.Bundle()
			k.keeper.roots.accepted = hashesOf(k.t, k.snap.Bundle)
		}, false},
		"another pod range":  {func(k *court) { k.snap.Nodes[0].PodCIDRs = k.b.Live.PodCIDRs }, false},
		"not due, all is on": {func(*court) {}, true},
	} {
		t.Run(name, func(t *testing.T) {
			k := newCourt(t)
			desk := &away{office: office{k: k}}
			k.keeper.cfg.Cluster = desk
			k.keeper.clock = k.c.Clock.Now
			k.snap.Bundle = k.c.Authority.Bundle()
			k.pass()
			if err := k.keeper.refresh(t.Context(), k.keeper.want); err != nil {
				t.Fatal(err)
			}
			k.snap.NodeKeys["self"] = desk.published
			first := desk.published
			desk.controller = true
			tc.meanwhile(k)
			info, _ := k.keeper.identity.Certificate()
			old := k.keeper.identity.WGKeys().Generations()
			next, err := k.keeper.identity.WGKeys().Create()
			if err != nil {
				t.Fatal(err)
			}
			k.pass()
			k.keeper.SetKeys([]uint64{next.Generation}, old)
			err = k.keeper.refresh(t.Context(), k.keeper.want)
			if got := !desk.published.Equal(first); got != tc.published {
				t.Errorf("published %t, want %t (%v)", got, tc.published, err)
			}
			if need, _ := k.keeper.needsCertificate(k.keeper.want); need != "" && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("%v; want it told that the controller is away", err)
			}

			desk.controller = false
			if name == "leads to no root" {
				return // which this controller cannot mend
			}
			if err := k.keeper.refresh(t.Context(), k.keeper.want); err != nil {
				t.Fatal(err)
			}
			s, err := keymgr.ParseStatement(desk.published.Payload)
			renewed, _ := k.keeper.identity.Certificate()
			if err != nil || len(s.Keys) != 1 || s.Keys[0].Key != next.Public || (renewed == info) != (name == "not due, all is on") {
				t.Errorf("with the controller back: published %+v, %v, certificate %s after %s", s, err, renewed.Serial, info.Serial)
			}
		})
	}
}
