// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/keytest"
)

func TestNeedsCertificateForRoots(t *testing.T) {
	c := keytest.NewCluster(t)
	n := c.Node("a", "10.244.1.0/24")
	tr := &trust{identity: n.Identity, clock: c.Clock.Now, log: slog.New(slog.DiscardHandler)}
	w := &wanted{self: kube.Node{PodCIDRs: n.Live.PodCIDRs}, bundle: c.Authority.Bundle(), nodes: 3}
	check := func(what, why string, least, most time.Duration) {
		t.Helper()
		got, rest := tr.needsCertificate(w)
		if got != why || rest < least || rest > most {
			t.Errorf("%s: %q, rest %v, want %q and %v to %v", what, got, rest, why, least, most)
		}
	}
	check("all is well", "", identityCheck, identityCheck)

	window := keymgr.Window{Root: "0a", From: c.Clock.Now().Add(20 * time.Second), To: c.Clock.Now().Add(25 * time.Second)}
	var err error
	if w.window, err = window.Encode(); err != nil {
		t.Fatal(err)
	}
	check("before the window", "", 20*time.Second, 25*time.Second)
	c.Clock.Add(25 * time.Second)
	check("after it", keymgr.NeedRoot, 0, 0)
	w.window = []byte("spoilt")
	check("a window that is none", "", identityCheck, identityCheck)

	w.window, w.bundle = nil, keytest.NewCluster(t).Authority.Bundle()
	check("another authority, few nodes", keymgr.NeedTrusted, 0, 0)
	w.nodes, tr.distrusted = 5000, time.Time{}
	_, rest := tr.needsCertificate(w)
	c.Clock.Add(keymgr.Span(5000))
	check("another authority, many nodes, in the end", keymgr.NeedTrusted, 0, 0)
	if rest == 0 {
		t.Error("all of many nodes would ask at once")
	}
}

func TestAlarmOnBrokenContinuity(t *testing.T) {
	c := keytest.NewCluster(t)
	a := c.Node("a", "10.244.1.0/24")
	told := &events{}
	j := newJudge(c.Verifier("self"), told, slog.New(slog.DiscardHandler), nil)
	j.clock = c.Clock.Now
	snap := kube.Snapshot{
		Nodes:    []kube.Node{{Name: a.Live.ID.Name, UID: a.Live.ID.UID, PodCIDRs: a.Live.PodCIDRs, Addresses: a.Live.Addresses}},
		NodeKeys: map[string]keymgr.Signed{"a": a.Sign()},
	}
	j.pass(t.Context(), snap, "self")
	c.Clock.Add(time.Minute)
	c.Certify(a)
	snap.NodeKeys["a"] = a.Sign()
	if j.pass(t.Context(), snap, "self"); len(*told) != 0 {
		t.Errorf("a plain renewal is an alarm: %+v", *told)
	}
	c.Clock.Add(time.Minute)
	a.Identity = c.Identity(a.Live.ID, t.TempDir())
	c.Certify(a)
	snap.NodeKeys["a"] = a.Sign()
	for range 3 {
		if got := j.pass(t.Context(), snap, "self")[0]; got.err != nil {
			t.Fatal(got.err)
		}
	}
	if all := j.alarmsSoFar(); len(all) != 1 || all[0].Count != 1 || len(*told) != 1 || (*told)[0].Reason != "ContinuityBroken" {
		t.Errorf("alarms %+v, events %+v; want one of each", all, *told)
	}
}

// TestStatementOvertakenByRoots: the news that a root is dropped come before the
// statement by which a node left it. An operator hears of it if that never comes.
func TestStatementOvertakenByRoots(t *testing.T) {
	c := keytest.NewCluster(t)
	a := c.Node("a", "10.244.1.0/24")
	told, v := &events{}, c.Verifier("self")
	j := newJudge(v, told, slog.New(slog.DiscardHandler), nil)
	j.clock = c.Clock.Now
	snap := kube.Snapshot{
		Nodes:    []kube.Node{{Name: a.Live.ID.Name, UID: a.Live.ID.UID, PodCIDRs: a.Live.PodCIDRs, Addresses: a.Live.Addresses}},
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
		got := j.pass(t.Context(), snap, "self")[0]
		if !errors.Is(got.err, want) || len(got.peer.Keys) == 0 {
			t.Errorf("%s: %v with %d keys in force, want %v and the accepted ones", when, got.err, len(got.peer.Keys), want)
		}
		if len(j.refusedSoFar()) != alarms || len(*told) != alarms {
			t.Errorf("%s: refusals %+v, events %+v; want %d", when, j.refusedSoFar(), *told, alarms)
		}
	}
	check("one root", nil, 0)
	old, next := c.Authority.Bundle(), keytest.NewCluster(t)
	roots(next.Authority.Bundle())
	check("root dropped", keymgr.ErrChain, 0)
	c.Clock.Add(resync / 2)
	roots(slices.Concat(old, next.Authority.Bundle()))
	check("the statement came", nil, 0)
	roots(next.Authority.Bundle())
	check("root dropped again", keymgr.ErrChain, 0)
	c.Clock.Add(resync - 1)
	check("for a while", keymgr.ErrChain, 0)
	c.Clock.Add(1)
	check("for good", keymgr.ErrChain, 1)
	check("told once", keymgr.ErrChain, 1)
}

// refusing is a cluster that denies every certificate.
type refusing struct {
	office
	reason ca.Reason
	asked  chan struct{}
}

func (r *refusing) RequestCertificate(_ context.Context, c kube.CertificateRequest) ([][]byte, error) {
	r.asked <- struct{}{}
	return nil, &kube.DeniedError{Request: c.Node.Name, Reason: string(r.reason), Message: "denied"}
}

// TestTooManyRequestsAreNotMadeMore: a node that is told that it asks too often
// waits, whatever happens in the cluster meanwhile.
func TestTooManyRequestsAreNotMadeMore(t *testing.T) {
	for reason, atOnce := range map[ca.Reason]bool{ca.ReasonRateLimit: false, ca.ReasonNodeRevoked: true} {
		k := newCourt(t)
		k.snap.Bundle = k.c.Authority.Bundle()
		desk := &refusing{reason: reason, asked: make(chan struct{}, 100)}
		k.trust.cluster = desk
		k.pass() // pokes
		synctest.Test(t, func(t *testing.T) {
			k.trust.poked = make(chan struct{}, 1)
			signal(k.trust.poked)
			ctx, cancel := context.WithCancel(t.Context())
			done := make(chan error)
			go func() { done <- k.trust.run(ctx) }()
			synctest.Wait()
			signal(k.trust.poked)
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
