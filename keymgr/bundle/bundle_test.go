// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bundle_test

import (
	"bytes"
	"crypto"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/bundle"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// office is an authority of which every phase of changes of roots was seen.
type office struct {
	*keytest.Cluster
	t *testing.T
}

func newOffice(t *testing.T) *office { return &office{keytest.NewCluster(t), t} }

// published is what the controller shows now.
func (o *office) published() bundle.Published { o.t.Helper(); return published(o.t, o.Authority) }

func published(t *testing.T, a *ca.Authority) bundle.Published {
	t.Helper()
	status, err := a.Status()
	if err != nil {
		t.Fatal(err)
	}
	history, err := bundle.Parse(status.History)
	if err != nil {
		t.Fatal(err)
	}
	return bundle.Published{Roots: parse(t, a.Bundle()), History: history}
}

func parse(t *testing.T, pem []byte) []*x509.Certificate {
	t.Helper()
	roots, err := keymgr.ParseBundle(pem)
	if err != nil {
		t.Fatal(err)
	}
	return roots
}

// advance goes to the next phase of a change of roots, which no node holds up.
func (o *office) advance(want rootchange.Phase) bundle.Published {
	o.t.Helper()
	o.Clock.Add(10 * time.Minute)
	request := o.Clock.Now()
	if moved, err := o.Authority.Advance(o.t.Context(), rootchange.Fleet{Request: request}); err != nil || !moved {
		o.t.Fatalf("no step: %v", err)
	}
	status, err := o.Authority.Status()
	if err != nil || status.Stage.Phase != want {
		o.t.Fatalf("phase %s, %v, want %s", status.Stage.Phase, err, want)
	}
	return o.published()
}

// change is a whole change of roots: what is published in each phase.
func (o *office) change() []bundle.Published {
	o.t.Helper()
	return []bundle.Published{
		o.advance(rootchange.PhaseAnnounced), o.advance(rootchange.PhaseSwitched),
		o.advance(rootchange.PhaseDropped), o.advance(rootchange.PhaseSteady),
	}
}

func (o *office) reader(accepted ...*x509.Certificate) bundle.Reader {
	r := bundle.Reader{TrustDomain: keytest.TrustDomain, Now: o.Clock.Now()}
	for _, c := range accepted {
		r.Accepted = append(r.Accepted, sha256.Sum256(c.Raw))
	}
	return r
}

// take wants the bundle to be taken.
func (o *office) take(have bundle.Trusted, p bundle.Published) bundle.Trusted {
	o.t.Helper()
	got, err := o.reader().Take(have, p)
	if err != nil || !same(got.Roots, p.Roots) {
		o.t.Fatalf("not taken: %v", err)
	}
	return got
}

func same(a, b []*x509.Certificate) bool { return bytes.Equal(raw(a), raw(b)) }

func raw(certs []*x509.Certificate) (all []byte) {
	for _, c := range certs {
		all = append(all, c.Raw...)
	}
	return all
}

// TestNodesFollowAChangeOfRoots, whichever phases they sleep through, also two whole changes.
func TestNodesFollowAChangeOfRoots(t *testing.T) {
	o := newOffice(t)
	all := append([]bundle.Published{o.published()}, o.change()...)
	all = append(all, o.change()...)
	for from, seen := range all {
		asleep := o.take(bundle.Trusted{}, seen)
		if asleep.Number == 0 {
			t.Errorf("first contact in phase %d learns no number", from)
		}
		for to := from; to < len(all); to++ {
			got := o.take(asleep, all[to])
			if got.Number < asleep.Number {
				t.Errorf("from phase %d to %d: number %d after %d", from, to, got.Number, asleep.Number)
			}
		}
		// And back: nobody can put an older bundle back.
		for to := range from {
			got, err := o.reader().Take(asleep, all[to])
			if !same(got.Roots, seen.Roots) || (err == nil) != same(all[to].Roots, seen.Roots) {
				t.Errorf("back from phase %d to %d: %v", from, to, err)
			}
		}
	}
}

func TestWriterOfTheBundleAddsAndDropsNothing(t *testing.T) {
	o, thief := newOffice(t), newOffice(t)
	steady := o.published()
	own := thief.published()
	both := append(append([]*x509.Certificate{}, steady.Roots...), own.Roots...)
	spoilt := func(change func(s *keymgr.Signed)) bundle.History {
		s := steady.History[0]
		change(&s)
		return bundle.History{s}
	}
	forged, err := steady.History.Append(both, bundle.Signer{
		TrustDomain: keytest.TrustDomain, Now: o.Clock.Now(), Key: keymgr.Issuer{Key: key(t, o.Node("x", "10.244.7.0/24")), Chain: steady.History[0].Chain},
	})
	if err != nil {
		t.Fatal(err)
	}
	revocations, err := o.Authority.SignRevocations(keymgr.RevocationList{Type: keymgr.RevocationsType, TrustDomain: keytest.TrustDomain, Number: 1})
	if err != nil {
		t.Fatal(err)
	}
	listSigned := spoilt(func(s *keymgr.Signed) { s.Signature, s.Chain = revocations.Signature, revocations.Chain })
	announced := o.advance(rootchange.PhaseAnnounced)
	have := o.take(bundle.Trusted{}, announced)
	for name, p := range map[string]bundle.Published{
		"own root beside, not signed":            {Roots: append(append([]*x509.Certificate{}, announced.Roots...), own.Roots...)},
		"own root beside, own signature":         {Roots: append(append([]*x509.Certificate{}, announced.Roots...), own.Roots...), History: own.History},
		"own root beside, history of the others": {Roots: append(append([]*x509.Certificate{}, announced.Roots...), own.Roots...), History: announced.History},
		"own root alone":                         own,
		"one root dropped, not signed":           {Roots: steady.Roots},
		"one root dropped, step of before":       steady,
		"one root dropped, the next alone":       {Roots: announced.Roots[1:], History: announced.History},
		"signed by a node":                       {Roots: both, History: forged},
		"signature of another kind of text":      {Roots: steady.Roots, History: listSigned},
		"payload changed":                        {Roots: steady.Roots, History: spoilt(func(s *keymgr.Signed) { s.Payload = bytes.Replace(s.Payload, []byte(":17"), []byte(":18"), 1) })},
		"no history but garbage":                 {Roots: steady.Roots, History: bundle.History{{}}},
	} {
		got, err := o.reader().Take(have, p)
		if !errors.Is(err, bundle.ErrNotVouched) || !same(got.Roots, have.Roots) || got.Number != have.Number {
			t.Errorf("%s: %v; trusts %d roots, number %d", name, err, len(got.Roots), got.Number)
		}
	}
	// What is trusted already needs no signature: controllers of the version before sign none.
	if _, err := o.reader().Take(have, bundle.Published{Roots: announced.Roots}); err != nil {
		t.Errorf("the trusted bundle, not signed: %v", err)
	}
}

// TestOperatorAcceptsRoots after continuity is lost.
func TestOperatorAcceptsRoots(t *testing.T) {
	o, other := newOffice(t), newOffice(t)
	have, next := o.take(bundle.Trusted{}, o.published()), other.published()
	_, err := o.reader().Take(have, next)
	want := keymgr.Hash(sha256.Sum256(next.Roots[0].Raw)).String()
	if !errors.Is(err, bundle.ErrNotVouched) || !strings.Contains(err.Error(), "keys.acceptedRoots") || !strings.Contains(err.Error(), "--accepted-roots="+want) {
		t.Errorf("%v; want field, value and remedy", err)
	}
	got, err := o.reader(next.Roots...).Take(have, next)
	if err != nil || !same(got.Roots, next.Roots) || got.Number == 0 {
		t.Errorf("accepted: %v, number %d", err, got.Number)
	}
	third := newOffice(t).published()
	more := bundle.Published{Roots: append(append([]*x509.Certificate{}, next.Roots...), third.Roots...)}
	if _, err := o.reader(next.Roots...).Take(have, more); !errors.Is(err, bundle.ErrNotVouched) {
		t.Errorf("one of two new roots is accepted: %v", err)
	}
	two := o.take(bundle.Trusted{}, o.advance(rootchange.PhaseAnnounced))
	if _, err := o.reader(two.Roots...).Take(two, bundle.Published{Roots: two.Roots[:1]}); !errors.Is(err, bundle.ErrNotVouched) {
		t.Errorf("a root dropped without a signature: %v", err)
	}
}

// TestNumbersFromTheFuture neither count nor bar.
func TestNumbersFromTheFuture(t *testing.T) {
	o := newOffice(t)
	have := o.take(bundle.Trusted{}, o.published())
	o.Clock.Add(3 * time.Hour)
	announced := o.advance(rootchange.PhaseAnnounced)
	o.Clock.Add(-time.Hour)
	if _, err := o.reader().Take(have, announced); !errors.Is(err, keymgr.ErrClock) || !strings.Contains(err.Error(), "clock") {
		t.Errorf("step from the future: %v", err)
	}
	o.Clock.Add(time.Hour)
	have.Number = math.MaxUint64
	if got := o.take(have, announced); got.Number == math.MaxUint64 {
		t.Error("a number from the future bars all that follow")
	}

	// The controller's clock was ahead, and is right again: it begins again at the clock.
	o.Clock.Add(-2 * time.Hour)
	if err := o.Authority.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	o.take(bundle.Trusted{Roots: announced.Roots[:1]}, o.published())
}

// TestHistoryStaysShort: renewals of the intermediate add nothing.
func TestHistoryStaysShort(t *testing.T) {
	o := newOffice(t)
	first := o.published()
	have := o.take(bundle.Trusted{}, first)
	for range 4 {
		o.Clock.Add(300 * 24 * time.Hour)
		if err := o.Authority.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		p := o.published()
		if len(p.History) != 1 || bytes.Equal(p.History[0].Chain[0], first.History[0].Chain[0]) {
			t.Fatalf("history of %d steps, signed again: %t", len(p.History), !bytes.Equal(p.History[0].Chain[0], first.History[0].Chain[0]))
		}
		have = o.take(have, p)
		first = p
	}
	before, err := o.published().History.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.Authority.Renew(t.Context()); err != nil {
		t.Fatal(err)
	}
	if after, err := o.published().History.Encode(); err != nil || !bytes.Equal(before, after) {
		t.Errorf("signed again without need: %v", err)
	}
}

// TestProvidedRoots changes roots as an operator with a root of his own does: the next one
// behind, then in front, then alone.
func TestProvidedRoots(t *testing.T) {
	clock := keytest.NewClock()
	own := func() (cert, key []byte) {
		store := memorystore.New()
		if _, err := ca.Open(t.Context(), ca.Config{TrustDomain: keytest.TrustDomain, Store: store, Clock: clock.Now}); err != nil {
			t.Fatal(err)
		}
		stored, err := store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return stored.Files[ca.FileRootCert], stored.Files[ca.FileRootKey]
	}
	oldCert, oldKey := own()
	newCert, newKey := own()
	store := memorystore.New()
	var have bundle.Trusted
	start := func(root ca.Root) {
		t.Helper()
		clock.Add(time.Minute)
		root.Shared = true
		a, err := ca.Open(t.Context(), ca.Config{TrustDomain: keytest.TrustDomain, Store: store, Clock: clock.Now, Root: root})
		if err != nil {
			t.Fatal(err)
		}
		p := published(t, a)
		if have, err = (bundle.Reader{TrustDomain: keytest.TrustDomain, Now: clock.Now()}).Take(have, p); err != nil {
			t.Fatal(err)
		}
	}
	start(ca.Root{Certificates: oldCert, Key: oldKey})
	start(ca.Root{Certificates: oldCert}) // its key is offline now
	start(ca.Root{Certificates: append(bytes.Clone(oldCert), newCert...)})
	start(ca.Root{Certificates: append(bytes.Clone(newCert), oldCert...), Key: newKey})
	start(ca.Root{Certificates: newCert})
	if !same(have.Roots, parse(t, newCert)) {
		t.Error("the old root is still trusted")
	}
}

func FuzzTake(f *testing.F) {
	c := keytest.NewCluster(f)
	status, err := c.Authority.Status()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(status.History)
	f.Add([]byte(`[{"payload":"e30=","signature":"","chain":[]}]`))
	roots, err := keymgr.ParseBundle(c.Authority.Bundle())
	if err != nil {
		f.Fatal(err)
	}
	other, err := keymgr.ParseBundle(keytest.NewCluster(f).Authority.Bundle())
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := bundle.Parse(data)
		if err != nil {
			return
		}
		r := bundle.Reader{TrustDomain: keytest.TrustDomain, Now: c.Clock.Now()}
		if _, err := r.Take(bundle.Trusted{Roots: roots}, bundle.Published{Roots: other, History: h}); err == nil {
			t.Fatal("another root was taken")
		}
	})
}

// key returns the private key of a node.
func key(t *testing.T, n *keytest.Node) crypto.Signer {
	t.Helper()
	cert, err := n.Identity.TLSCertificate()
	if err != nil {
		t.Fatal(err)
	}
	signer, ok := cert.PrivateKey.(crypto.Signer)
	if !ok {
		t.Fatalf("node key is a %T", cert.PrivateKey)
	}
	return signer
}
