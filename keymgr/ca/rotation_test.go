// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// fleet is an office with nodes that follow what it publishes.
type fleet struct {
	*office
	roots   *memorystore.Store
	request time.Time
	nodes   []*follower
}

// follower is a node, as far as a change of roots goes.
type follower struct {
	name   string
	asleep bool
	bundle []byte
	chain  [][]byte
}

func newFleet(t *testing.T, n int) *fleet {
	t.Helper()
	f := &fleet{office: newOffice(t), roots: memorystore.New()}
	f.cfg.RootStore = f.roots
	a := f.open()
	for i := range n {
		f.nodes = append(f.nodes, &follower{name: fmt.Sprint("n", i), bundle: a.Bundle(), chain: f.issue(a)})
	}
	return f
}

func (f *fleet) state() rootchange.Fleet {
	f.t.Helper()
	out := rootchange.Fleet{Request: f.request}
	for _, n := range f.nodes {
		hash, err := keymgr.HashBundle(n.bundle)
		if err != nil {
			f.t.Fatal(err)
		}
		out.Nodes = append(out.Nodes, rootchange.NodeReport{Name: n.name, Ready: !n.asleep, BundleHash: hash.String(), Chain: n.chain})
	}
	return out
}

// follow lets the nodes that are awake take the bundle, and renew if the window
// says so. It checks what must hold at any moment.
func (f *fleet) follow(a *ca.Authority) {
	f.t.Helper()
	status, err := a.Status()
	if err != nil {
		f.t.Fatal(err)
	}
	for _, n := range f.nodes {
		if n.asleep {
			continue
		}
		n.bundle = a.Bundle()
		top := parseDER(f.t, n.chain[1])
		if w := status.Window; w != nil && fmt.Sprintf("%x", top.AuthorityKeyId) != w.Root && !f.clock.Now().Before(w.Moment(n.name)) {
			n.chain = f.issue(a)
		}
	}
	f.check()
}

// check: every node that is awake believes every other one that is.
func (f *fleet) check() {
	f.t.Helper()
	for _, reader := range f.nodes {
		for _, n := range f.nodes {
			if reader.asleep || n.asleep {
				continue
			}
			if err := f.verify(n.chain, reader.bundle); err != nil {
				f.t.Fatalf("%s does not believe %s: %v", reader.name, n.name, err)
			}
		}
	}
}

func (f *fleet) advance(a *ca.Authority) rootchange.Phase {
	f.t.Helper()
	if _, err := a.Advance(f.t.Context(), f.state()); err != nil {
		f.t.Fatal(err)
	}
	return f.phase(a)
}

func (f *fleet) phase(a *ca.Authority) rootchange.Phase {
	f.t.Helper()
	status, err := a.Status()
	if err != nil {
		f.t.Fatal(err)
	}
	return status.Stage.Phase
}

// untilSteady runs a change of roots to its end.
func (f *fleet) untilSteady(a *ca.Authority) {
	f.t.Helper()
	for range 20 {
		f.clock.Add(10 * time.Second)
		f.follow(a)
		if f.advance(a) == rootchange.PhaseSteady {
			return
		}
	}
	f.t.Fatalf("still %s", f.phase(a))
}

func TestRootRotation(t *testing.T) {
	f := newFleet(t, 3)
	a := f.open()
	before := rootOf(t, a)
	if got := f.advance(a); got != rootchange.PhaseSteady {
		t.Fatalf("phase %s without a request", got)
	}
	f.clock.Add(time.Hour)
	f.request = f.clock.Now()
	if got := f.advance(a); got != rootchange.PhaseAnnounced {
		t.Fatalf("phase %s after a request", got)
	}
	if roots, err := keymgr.ParseBundle(a.Bundle()); err != nil || len(roots) != 2 || !roots[0].Equal(before) {
		t.Fatalf("bundle has %d roots, %v", len(roots), err)
	}
	if err := f.verify(f.issue(a), keymgr.EncodeChain([][]byte{before.Raw})); err != nil {
		t.Errorf("the new root issues before every node trusts it: %v", err)
	}
	f.follow(a)
	f.nodes[1].bundle = keymgr.EncodeChain([][]byte{before.Raw}) // one is late
	if got := f.advance(a); got != rootchange.PhaseAnnounced {
		t.Fatalf("phase %s, but a node does not trust the new root", got)
	}
	f.follow(a)
	announced := a.Bundle()
	if got := f.advance(a); got != rootchange.PhaseSwitched {
		t.Fatalf("phase %s, every node has both roots", got)
	}
	if !bytes.Equal(announced, a.Bundle()) {
		t.Error("the bundle changed, so that every node must report again")
	}
	if err := f.verify(f.issue(a), keymgr.EncodeChain([][]byte{before.Raw})); !errors.Is(err, keymgr.ErrChain) {
		t.Errorf("the old root issues still: %v", err)
	}
	if got := f.advance(a); got != rootchange.PhaseSwitched {
		t.Fatalf("phase %s, certificates below the old root are in use", got)
	}
	f.clock.Add(5 * time.Second)
	f.follow(a)
	if got := f.advance(a); got != rootchange.PhaseDropped {
		t.Fatalf("phase %s, nothing leads to the old root", got)
	}
	after := rootOf(t, a)
	if roots, err := keymgr.ParseBundle(a.Bundle()); err != nil || len(roots) != 1 || after.Equal(before) || bytes.Equal(after.SubjectKeyId, before.SubjectKeyId) {
		t.Errorf("bundle has %d roots, %v", len(roots), err)
	}
	if got := f.advance(a); got != rootchange.PhaseDropped {
		t.Fatalf("phase %s, nodes trust the old root still", got)
	}
	f.follow(a)
	if got := f.advance(a); got != rootchange.PhaseSteady {
		t.Fatalf("phase %s at the end", got)
	}
	if got := f.advance(a); got != rootchange.PhaseSteady {
		t.Errorf("one request began a second change: %s", got)
	}
	if stored, err := f.roots.Load(t.Context()); err != nil || len(stored.Files) != 2 {
		t.Errorf("%d files of roots are left, %v", len(stored.Files), err)
	}
}

// The clock of whoever asks may be ahead, or the request older than the root.
func TestRootRotationRequests(t *testing.T) {
	f := newFleet(t, 1)
	a := f.open()
	f.request = f.clock.Now().Add(-time.Minute)
	if got := f.advance(a); got != rootchange.PhaseSteady {
		t.Errorf("phase %s after a request older than the root", got)
	}
	f.request = f.clock.Now().Add(time.Hour)
	if got := f.advance(a); got != rootchange.PhaseAnnounced {
		t.Fatalf("phase %s after a request", got)
	}
	f.untilSteady(a)
	if got := f.advance(f.open()); got != rootchange.PhaseSteady {
		t.Errorf("a request from the future was honoured twice: %s", got)
	}
}

func TestOldRootIsReplaced(t *testing.T) {
	f := newFleet(t, 2)
	a := f.open()
	f.clock.Add(ca.DefaultRootLifetime*8/10 - time.Second)
	for _, n := range f.nodes {
		if err := a.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		n.chain = f.issue(a)
	}
	if got := f.advance(a); got != rootchange.PhaseSteady {
		t.Errorf("phase %s before the time", got)
	}
	f.clock.Add(2 * time.Second)
	if got := f.advance(a); got != rootchange.PhaseAnnounced {
		t.Errorf("phase %s at 80 %% of the root's life", got)
	}
	f.untilSteady(a)
}

// Nobody waits for a node that sleeps longer than its certificate lasts.
func TestRootRotationWithSleeper(t *testing.T) {
	f := newFleet(t, 3)
	a := f.open()
	f.nodes[2].asleep = true
	f.clock.Add(time.Hour)
	f.request = f.clock.Now()
	for range 10 {
		f.advance(a)
		f.clock.Add(10 * time.Second)
		f.follow(a)
	}
	if got := f.phase(a); got != rootchange.PhaseSwitched {
		t.Fatalf("phase %s, the sleeper's certificate is valid", got)
	}
	status, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	waits := status.Stage.Waits(f.state().Nodes, f.clock.Now())
	if len(waits) != 1 || waits[0].Node != "n2" {
		t.Errorf("waits for %v", waits)
	}
	f.clock.Add(7 * day)
	for _, n := range f.nodes[:2] {
		n.chain = f.issue(a)
	}
	f.untilSteady(a)
	// It wakes: its old certificate is worth nothing, and a new one all.
	sleeper := f.nodes[2]
	sleeper.asleep, sleeper.chain = false, f.issue(a)
	f.follow(a)
}

func TestStageWaits(t *testing.T) {
	f := newFleet(t, 1)
	chain, now := f.nodes[0].chain, f.clock.Now()
	old := fmt.Sprintf("%x", parseDER(t, chain[1]).AuthorityKeyId)
	for name, tc := range map[string]struct {
		phase rootchange.Phase
		node  rootchange.NodeReport
		at    time.Time
		waits bool
	}{
		"steady waits for nobody":        {rootchange.PhaseSteady, rootchange.NodeReport{Ready: true}, now, false},
		"announced, other bundle":        {rootchange.PhaseAnnounced, rootchange.NodeReport{Ready: true, BundleHash: "y"}, now, true},
		"announced, no report":           {rootchange.PhaseAnnounced, rootchange.NodeReport{Ready: true}, now, true},
		"announced, not ready":           {rootchange.PhaseAnnounced, rootchange.NodeReport{}, now, false},
		"announced, has it":              {rootchange.PhaseAnnounced, rootchange.NodeReport{Ready: true, BundleHash: "x", Chain: chain}, now, false},
		"switched, old chain":            {rootchange.PhaseSwitched, rootchange.NodeReport{Ready: true, BundleHash: "x", Chain: chain}, now, true},
		"switched, old chain, expired":   {rootchange.PhaseSwitched, rootchange.NodeReport{Ready: true, BundleHash: "x", Chain: chain}, now.Add(30 * day), true},
		"switched, asleep":               {rootchange.PhaseSwitched, rootchange.NodeReport{Chain: chain}, now, true},
		"switched, asleep and expired":   {rootchange.PhaseSwitched, rootchange.NodeReport{Chain: chain}, now.Add(30 * day), false},
		"switched, nonsense for a chain": {rootchange.PhaseSwitched, rootchange.NodeReport{Ready: true, BundleHash: "x", Chain: [][]byte{{1}}}, now, false},
		"switched, no chain":             {rootchange.PhaseSwitched, rootchange.NodeReport{Ready: true, BundleHash: "x"}, now, false},
		"switched, forgot the bundle":    {rootchange.PhaseSwitched, rootchange.NodeReport{Ready: true, BundleHash: "y"}, now, true},
		"dropped, has the old one":       {rootchange.PhaseDropped, rootchange.NodeReport{Ready: true, BundleHash: "y"}, now, true},
		"dropped, has it":                {rootchange.PhaseDropped, rootchange.NodeReport{Ready: true, BundleHash: "x", Chain: chain}, now, false},
	} {
		tc.node.Name = "n"
		got := rootchange.Stage{Phase: tc.phase, Bundle: "x", OldRoot: old}.Waits([]rootchange.NodeReport{tc.node}, tc.at)
		if (len(got) == 1) != tc.waits {
			t.Errorf("%s: waits for %v", name, got)
		}
	}
}

// powerCut fails at one save, before or after it took effect, and at all later ones.
type powerCut struct {
	ca.Store
	left  *int
	after bool
}

var errCut = errors.New("power cut")

func (p powerCut) Save(ctx context.Context, next ca.Stored) error {
	*p.left--
	if *p.left > 0 || *p.left == 0 && p.after {
		if err := p.Store.Save(ctx, next); err != nil || *p.left > 0 {
			return err
		}
	}
	return errCut
}

// Whenever the controller dies, its successor finishes, every node believes every
// other one all the time, and no key lies around after it.
func TestRootRotationSurvivesCrashes(t *testing.T) {
	crashes := 0
	for cut := 1; ; cut++ {
		died := false
		for _, after := range []bool{false, true} {
			f := newFleet(t, 3)
			main, roots := f.cfg.Store, f.cfg.RootStore
			left := cut
			f.cfg.Store = powerCut{Store: main, left: &left, after: after}
			f.cfg.RootStore = powerCut{Store: roots, left: &left, after: after}
			a := f.open()
			f.clock.Add(time.Hour)
			f.request = f.clock.Now()
			for range 30 {
				moved, err := a.Advance(t.Context(), f.state())
				if err != nil && !errors.Is(err, errCut) {
					t.Fatal(err)
				}
				if errors.Is(err, errCut) {
					died, crashes = true, crashes+1
					f.cfg.Store, f.cfg.RootStore = main, roots
					f.check()
					a = f.open() // the successor
				}
				f.follow(a)
				if f.clock.Add(5 * time.Second); !moved && err == nil && f.phase(a) == rootchange.PhaseSteady {
					break
				}
			}
			status, err := a.Status()
			if err != nil || status.Stage.Phase != rootchange.PhaseSteady || status.RootOffline {
				t.Fatalf("cut at save %d: status %+v, %v", cut, status, err)
			}
			if status.Root.NotBefore.Before(f.request.Add(-5 * time.Minute)) {
				t.Errorf("cut at save %d: the root is the old one", cut)
			}
			stored, err := roots.Load(t.Context())
			if err != nil || len(stored.Files) != 2 {
				t.Errorf("cut at save %d: %d files of roots, %v", cut, len(stored.Files), err)
			}
		}
		if !died {
			break
		}
	}
	if crashes < 10 {
		t.Errorf("only %d crashes were tried", crashes)
	}
}

// Two controllers that believe to lead make one change of roots.
func TestRootRotationByTwo(t *testing.T) {
	f := newFleet(t, 2)
	a, b := f.open(), f.open()
	f.clock.Add(time.Hour)
	f.request = f.clock.Now()
	for range 8 {
		f.advance(a)
		f.advance(b)
		if !bytes.Equal(a.Bundle(), b.Bundle()) {
			if err := a.Renew(t.Context()); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(a.Bundle(), b.Bundle()) {
			t.Fatal("two controllers have two bundles")
		}
		f.clock.Add(10 * time.Second)
		f.follow(a)
	}
	if f.phase(a) != rootchange.PhaseSteady || f.phase(b) != rootchange.PhaseSteady {
		t.Errorf("phases %s and %s", f.phase(a), f.phase(b))
	}
}

// A root that was handed in is the operator's to change.
func TestHandedInRootIsNotRotated(t *testing.T) {
	root := sign(t, caTemplate(), ecKey(t), nil)
	o := given(t, root, true)
	a := o.open()
	o.clock.Add(time.Hour)
	if moved, err := a.Advance(t.Context(), rootchange.Fleet{Request: o.clock.Now()}); moved || err != nil {
		t.Errorf("moved %t, error %v", moved, err)
	}
}

func TestCorruptRotationIsAnError(t *testing.T) {
	for _, bad := range []string{"x", `{"phase":"else"}`} {
		f := newFleet(t, 0)
		s, err := f.store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Files[ca.FileRotation] = []byte(bad)
		if err := f.store.Save(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		if _, err := ca.Open(t.Context(), f.cfg); !errors.Is(err, ca.ErrRotation) {
			t.Errorf("%q: error %v, want ErrRotation", bad, err)
		}
	}
}

func TestAccount(t *testing.T) {
	f := newFleet(t, 1)
	a := f.open()
	f.clock.Add(time.Hour)
	f.request = f.clock.Now()
	f.advance(a)
	f.follow(a)
	f.advance(a)
	status, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	data, err := status.Account("self").Encode()
	if err != nil {
		t.Fatal(err)
	}
	got, err := rootchange.ParseAccount(data)
	if diff := cmp.Diff(status.Account("self"), got); err != nil || diff != "" {
		t.Errorf("error %v, difference:\n%s", err, diff)
	}
	if got.Stage(status.Stage.Bundle) != status.Stage || len(got.Roots) != 2 || got.Roots[0].State != rootchange.Old || got.Roots[1].State != rootchange.Issuing {
		t.Errorf("account %+v, stage %+v", got, status.Stage)
	}
	if bytes.Contains(data, []byte("PRIVATE")) {
		t.Error("the account holds a key")
	}
	if _, err := rootchange.ParseAccount([]byte("x")); err == nil {
		t.Error("nonsense is an account")
	}
}

// With the shortest lifetimes, leaves keep their whole life over many renewals of
// the intermediate, and readers believe them to their end.
func TestShortLivesUnderRenewal(t *testing.T) {
	f := newFleet(t, 2)
	f.cfg.RootLifetime, f.cfg.IntermediateLifetime = 240*time.Hour, 30*time.Minute
	f.cfg.Store, f.cfg.RootStore = memorystore.New(), memorystore.New()
	a := f.open()
	bundle := a.Bundle()
	var issuers int
	last := ""
	order := newOrder(t, 10*time.Minute)
	for range 240 {
		f.clock.Add(time.Minute)
		if err := a.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		chain, err := a.Issue(t.Context(), order)
		if err != nil {
			t.Fatal(err)
		}
		leaf, issuer := parseDER(t, chain[0]), parseDER(t, chain[1])
		if life := leaf.NotAfter.Sub(f.clock.Now()); life != 10*time.Minute {
			t.Fatalf("leaf lives %v", life)
		}
		if _, err := keymgr.VerifyCertificate(chain, bundle, leaf.NotAfter); err != nil {
			t.Fatal(err)
		}
		if s := issuer.SerialNumber.String(); s != last {
			issuers, last = issuers+1, s
		}
	}
	if issuers != 13 {
		t.Errorf("%d intermediates in 4 hours, want 13", issuers)
	}
}

func TestRootApart(t *testing.T) {
	f := newFleet(t, 0)
	if files := f.files(); len(files[ca.FileRootKey]) > 0 || len(files[ca.FileRootCert]) == 0 {
		t.Error("the root's key lies beside the intermediate's")
	}
	stored, err := f.roots.Load(t.Context())
	if err != nil || len(stored.Files[ca.FileRootKey]) == 0 || len(stored.Files[ca.FileRootCert]) == 0 {
		t.Errorf("the roots' store has %d files, %v", len(stored.Files), err)
	}
}

// What an older version kept in one store moves, whenever the power is cut.
func TestRootMoves(t *testing.T) {
	for cut := range 4 {
		o := newOffice(t)
		bundle := o.open().Bundle()
		roots, left := memorystore.New(), cut
		o.cfg.Store = powerCut{Store: o.store, left: &left}
		o.cfg.RootStore = powerCut{Store: roots, left: &left}
		if _, err := ca.Open(t.Context(), o.cfg); err != nil && !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		o.cfg.Store, o.cfg.RootStore = o.store, roots
		a := o.open()
		status, err := a.Status()
		if err != nil || status.RootOffline || !bytes.Equal(bundle, a.Bundle()) {
			t.Errorf("cut %d: status %+v, %v", cut, status, err)
		}
		if stored, err := roots.Load(t.Context()); err != nil || len(stored.Files) != 2 || len(o.files()[ca.FileRootKey]) != 0 {
			t.Errorf("cut %d: %d files of roots, %v", cut, len(stored.Files), err)
		}
	}
}
