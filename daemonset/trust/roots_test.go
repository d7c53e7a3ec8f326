// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"bytes"
	"crypto/sha256"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// announce makes the cluster's ConfigMap say what an authority says.
func (k *court) announce(c *keytest.Cluster) {
	k.t.Helper()
	status, err := c.Authority.Status()
	if err != nil {
		k.t.Fatal(err)
	}
	k.snap.Bundle, k.snap.Trust = c.Authority.Bundle(), cluster.Trust{History: status.History}
}

// restart begins a daemon with what is on disk.
func (k *court) restart(accepted ...keymgr.Hash) {
	k.t.Helper()
	cfg := k.keeper.cfg
	cfg.AcceptedRoots, cfg.State, cfg.Logger = accepted, readiness.New(readiness.Keys), slog.New(slog.DiscardHandler)
	v, err := keymgr.NewVerifier(k.c.VerifierConfig("self"))
	if err != nil {
		k.t.Fatal(err)
	}
	restored, err := restorePeers(k.keeper.identity, v)
	if err != nil {
		k.t.Fatal(err)
	}
	k.keeper = newKeeper(cfg, k.keeper.identity, v, restored)
}

// hashesOf returns what an operator would write into keys.acceptedRoots.
func hashesOf(t *testing.T, bundle []byte) (all []keymgr.Hash) {
	t.Helper()
	roots, err := keymgr.ParseBundle(bundle)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range roots {
		all = append(all, sha256.Sum256(c.Raw))
	}
	return all
}

// bundleEvents returns the Events about the bundle.
func (k *court) bundleEvents() (all []kube.EventSpec) {
	for _, e := range k.told {
		if e.Reason == "TrustBundleRefused" {
			all = append(all, e)
		}
	}
	return all
}

// TestForgedBundleChangesNothing: whoever can write the ConfigMap, and no more, cuts no lane and
// gets no root in, neither for a running daemon nor for one that starts.
func TestForgedBundleChangesNothing(t *testing.T) {
	k, thief := newCourt(t), keytest.NewCluster(t)
	k.keeper.cfg.Cluster = &office{k: k}
	k.announce(k.c)
	refresh := func() {
		t.Helper()
		if j := k.pass(); !k.laneOf(j) || j.Err != nil {
			t.Fatalf("no lane: %+v", j)
		}
		if err := k.keeper.refresh(t.Context(), k.keeper.want); err != nil {
			t.Fatal(err)
		}
	}
	refresh()
	before := k.keeper.Facts().BundleHash
	genuine := k.snap
	for name, forge := range map[string]func(){
		"another root":             func() { k.announce(thief) },
		"another root beside":      func() { k.snap.Bundle = append(bytes.Clone(genuine.Bundle), thief.Authority.Bundle()...) },
		"garbage":                  func() { k.snap.Bundle = []byte("x") },
		"garbage for a history":    func() { k.announce(thief); k.snap.Trust.History = []byte("x") },
		"a history of the thief's": func() { k.announce(thief); k.snap.Bundle = append(k.snap.Bundle, genuine.Bundle...) },
	} {
		k.told = nil
		forge()
		for range 3 {
			refresh()
		}
		k.restart()
		refresh()
		f := k.keeper.Facts()
		if f.BundleHash != before || f.BundleRefused == "" {
			t.Errorf("%s: bundle %s, refused %q", name, f.BundleHash, f.BundleRefused)
		}
		if told := k.bundleEvents(); len(told) != 2 || told[0].Message != f.BundleRefused { // one for each daemon
			t.Errorf("%s: events %+v, want one for each daemon", name, told)
		}
		k.snap.Bundle, k.snap.Trust = genuine.Bundle, genuine.Trust
		refresh()
		if f := k.keeper.Facts(); f.BundleRefused != "" {
			t.Errorf("%s: put right, but refused: %s", name, f.BundleRefused)
		}
	}
	k.snap.Bundle, k.snap.Trust = nil, cluster.Trust{}
	refresh() // the ConfigMap is gone: nothing happens
	if f := k.keeper.Facts(); f.BundleHash != before || f.BundleRefused != "" {
		t.Errorf("deleted: bundle %s, refused %q", f.BundleHash, f.BundleRefused)
	}
}

// TestBundleFollowsTheAuthority through a change of roots, and the number on disk with it.
func TestBundleFollowsTheAuthority(t *testing.T) {
	k := newCourt(t)
	k.announce(k.c)
	k.pass()
	last := k.keeper.identity.BundleNumber()
	for _, phase := range []rootchange.Phase{rootchange.PhaseAnnounced, rootchange.PhaseSwitched, rootchange.PhaseDropped} {
		k.c.Clock.Add(time.Minute)
		if moved, err := k.c.Authority.Advance(t.Context(), rootchange.Fleet{Request: k.c.Clock.Now()}); err != nil || !moved {
			t.Fatal(moved, err)
		}
		k.announce(k.c)
		k.pass()
		want, err := keymgr.HashBundle(k.snap.Bundle)
		if err != nil {
			t.Fatal(err)
		}
		if f := k.keeper.Facts(); f.BundleHash != want.String() || f.BundleRefused != "" {
			t.Errorf("%s: bundle %s, want %s; refused %q", phase, f.BundleHash, want, f.BundleRefused)
		}
		if now := k.keeper.identity.BundleNumber(); now <= last {
			t.Errorf("%s: number %d after %d", phase, now, last)
		} else {
			last = now
		}
	}
}

// TestOperatorAcceptsARoot after a disaster, by its hash.
func TestOperatorAcceptsARoot(t *testing.T) {
	k, next := newCourt(t), keytest.NewCluster(t)
	next.Clock.Add(time.Since(next.Clock.Now()))
	k.announce(k.c)
	k.pass()
	k.announce(next)
	k.pass()
	hash := hashesOf(t, next.Authority.Bundle())[0]
	if why := k.keeper.Facts().BundleRefused; !strings.Contains(why, "keys.acceptedRoots") || !strings.Contains(why, hash.String()) {
		t.Errorf("refused: %q; want field, value and remedy", why)
	}
	k.restart(hash)
	k.pass()
	want, err := keymgr.HashBundle(next.Authority.Bundle())
	if err != nil {
		t.Fatal(err)
	}
	if f := k.keeper.Facts(); f.BundleHash != want.String() || f.BundleRefused != "" {
		t.Errorf("bundle %s, want %s; refused %q", f.BundleHash, want, f.BundleRefused)
	}
}
