// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/keytest"
)

const day = 24 * time.Hour

// office is an authority with its store and clock.
type office struct {
	t     *testing.T
	clock *keytest.Clock
	store *memorystore.Store
	cfg   ca.Config
}

func newOffice(t *testing.T) *office {
	t.Helper()
	o := &office{t: t, clock: keytest.NewClock(), store: memorystore.New()}
	o.cfg = ca.Config{TrustDomain: keytest.TrustDomain, Store: o.store, Clock: o.clock.Now}
	return o
}

func (o *office) open() *ca.Authority {
	o.t.Helper()
	a, err := ca.Open(o.t.Context(), o.cfg)
	if err != nil {
		o.t.Fatal(err)
	}
	return a
}

func (o *office) files() map[string][]byte {
	o.t.Helper()
	s, err := o.store.Load(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	return s.Files
}

// drop removes a file from the store.
func (o *office) drop(name string) {
	o.t.Helper()
	s, err := o.store.Load(o.t.Context())
	if err != nil {
		o.t.Fatal(err)
	}
	delete(s.Files, name)
	if err := o.store.Save(o.t.Context(), s); err != nil {
		o.t.Fatal(err)
	}
}

func (o *office) order() approval.Order { return newOrder(o.t, 0) }

func (o *office) issue(a *ca.Authority) [][]byte {
	o.t.Helper()
	chain, err := a.Issue(o.t.Context(), o.order())
	if err != nil {
		o.t.Fatal(err)
	}
	return chain
}

func (o *office) verify(chain [][]byte, bundle []byte) error {
	_, err := keymgr.VerifyCertificate(chain, bundle, o.clock.Now())
	return err
}

func parseDER(t *testing.T, der []byte) *x509.Certificate {
	t.Helper()
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func rootOf(t *testing.T, a *ca.Authority) *x509.Certificate {
	t.Helper()
	roots, err := keymgr.ParseBundle(a.Bundle())
	if err != nil {
		t.Fatal(err)
	}
	return roots[0]
}

func TestLeaf(t *testing.T) {
	o := newOffice(t)
	a := o.open()
	order := o.order()
	chain, err := a.Issue(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	if err := o.verify(chain, a.Bundle()); err != nil {
		t.Fatal(err)
	}
	leaf, intermediate, now := parseDER(t, chain[0]), parseDER(t, chain[1]), o.clock.Now()

	if !bytes.Equal(leaf.RawSubject, []byte{0x30, 0}) {
		t.Errorf("subject is %q, want none", leaf.Subject)
	}
	want := keytest.ID("a").URI(keytest.TrustDomain).String()
	if len(leaf.URIs) != 1 || leaf.URIs[0].String() != want || len(leaf.DNSNames)+len(leaf.IPAddresses)+len(leaf.EmailAddresses) > 0 {
		t.Errorf("names are %v, want only %s", leaf.URIs, want)
	}
	for _, e := range leaf.Extensions {
		if e.Id.String() == "2.5.29.17" && !e.Critical {
			t.Error("subjectAltName is not critical though there is no subject (RFC 5280, 4.2.1.6)")
		}
	}
	if !slices.Equal(leaf.ExtKeyUsage, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}) ||
		leaf.KeyUsage != x509.KeyUsageDigitalSignature || leaf.IsCA || !leaf.BasicConstraintsValid {
		t.Errorf("usages are %v and %v, CA is %v", leaf.ExtKeyUsage, leaf.KeyUsage, leaf.IsCA)
	}
	if !leaf.NotBefore.Equal(now.Add(-5*time.Minute)) || !leaf.NotAfter.Equal(now.Add(7*day)) {
		t.Errorf("valid from %v to %v, now is %v", leaf.NotBefore, leaf.NotAfter, now)
	}
	if leaf.SerialNumber.Sign() <= 0 || leaf.SerialNumber.BitLen() < 64 || leaf.SerialNumber.BitLen() > 129 {
		t.Errorf("serial number is %x", leaf.SerialNumber)
	}
	if !bytes.Equal(leaf.AuthorityKeyId, intermediate.SubjectKeyId) || !leaf.PublicKey.(*ecdsa.PublicKey).Equal(order.PublicKey()) {
		t.Error("keys do not match")
	}
	got, err := keymgr.VerifyCertificate(chain, a.Bundle(), now)
	if wantCIDRs := []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}; err != nil || !slices.Equal(got.PodCIDRs, wantCIDRs) {
		t.Errorf("pod CIDRs are %v, %v; want %v", got.PodCIDRs, err, wantCIDRs)
	}
}

func TestSerialsDiffer(t *testing.T) {
	o := newOffice(t)
	a := o.open()
	seen := map[string]bool{}
	for range 50 {
		seen[parseDER(t, o.issue(a)[0]).SerialNumber.String()] = true
	}
	if len(seen) != 50 {
		t.Errorf("50 certificates have %d serial numbers", len(seen))
	}
}

func TestOwnRootAndIntermediate(t *testing.T) {
	o := newOffice(t)
	a := o.open()
	root, intermediate, now := rootOf(t, a), parseDER(t, o.issue(a)[1]), o.clock.Now()
	if root.MaxPathLen != 1 || !root.IsCA || root.KeyUsage != x509.KeyUsageCertSign|x509.KeyUsageCRLSign {
		t.Errorf("root: path length %d, CA %v, usage %v", root.MaxPathLen, root.IsCA, root.KeyUsage)
	}
	if intermediate.MaxPathLen != 0 || !intermediate.MaxPathLenZero || !intermediate.IsCA {
		t.Errorf("intermediate: path length %d, CA %v", intermediate.MaxPathLen, intermediate.IsCA)
	}
	if !root.NotAfter.Equal(now.Add(ca.DefaultRootLifetime)) || !intermediate.NotAfter.Equal(now.Add(ca.DefaultIntermediateLifetime)) {
		t.Errorf("they end %v and %v", root.NotAfter, intermediate.NotAfter)
	}
	if !bytes.Equal(intermediate.AuthorityKeyId, root.SubjectKeyId) || bytes.Equal(intermediate.SubjectKeyId, root.SubjectKeyId) ||
		len(root.SubjectKeyId) == 0 || root.Subject.String() == intermediate.Subject.String() {
		t.Errorf("key ids are %x and %x below %x", root.SubjectKeyId, intermediate.SubjectKeyId, intermediate.AuthorityKeyId)
	}
	other := rootOf(t, newOffice(t).open())
	if other.Subject.String() == root.Subject.String() || bytes.Equal(other.SubjectKeyId, root.SubjectKeyId) {
		t.Error("two roots have one name or key id")
	}
}

func TestAuthoritySurvivesRestart(t *testing.T) {
	o := newOffice(t)
	a := o.open()
	chain := o.issue(a)
	before := o.files()
	again := o.open()
	if !bytes.Equal(a.Bundle(), again.Bundle()) || !bytes.Equal(o.issue(again)[1], chain[1]) {
		t.Error("a restart made a new root or intermediate")
	}
	if diff := cmp.Diff(before, o.files()); diff != "" {
		t.Errorf("a restart changed the store:\n%s", diff)
	}
	want := []string{ca.FileBundle, ca.FileIntermediateCert, ca.FileIntermediateKey, ca.FileRootCert, ca.FileRootKey}
	if got := slices.Sorted(maps.Keys(before)); !slices.Equal(got, want) {
		t.Errorf("stored are %v, want %v", got, want)
	}
}

// Controllers that start at the same moment agree on one root.
func TestOneRootForAll(t *testing.T) {
	o := newOffice(t)
	const controllers = 12
	var wg sync.WaitGroup
	authorities := make([]*ca.Authority, controllers)
	errs := make([]error, controllers)
	for i := range controllers {
		wg.Go(func() { authorities[i], errs[i] = ca.Open(context.Background(), o.cfg) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	for _, a := range authorities {
		if !bytes.Equal(a.Bundle(), authorities[0].Bundle()) {
			t.Fatal("two controllers have two roots")
		}
		if err := o.verify(o.issue(a), authorities[0].Bundle()); err != nil {
			t.Error(err)
		}
	}
}

// lossyStore loses every race, or fails.
type lossyStore struct {
	*memorystore.Store
	load, save error
}

func (s *lossyStore) Load(ctx context.Context) (ca.Stored, error) {
	if s.load != nil {
		return ca.Stored{}, s.load
	}
	return s.Store.Load(ctx)
}

func (s *lossyStore) Save(ctx context.Context, next ca.Stored) error {
	if s.save != nil {
		return s.save
	}
	return s.Store.Save(ctx, next)
}

func TestOpenReportsStore(t *testing.T) {
	broken := errors.New("etcd is away")
	for name, tc := range map[string]struct {
		store lossyStore
		want  error
	}{
		"load fails":      {lossyStore{load: broken, Store: memorystore.New()}, broken},
		"save fails":      {lossyStore{save: broken, Store: memorystore.New()}, broken},
		"always conflict": {lossyStore{save: ca.ErrConflict, Store: memorystore.New()}, ca.ErrConflict},
	} {
		_, err := ca.Open(t.Context(), ca.Config{TrustDomain: "td", Store: &tc.store})
		if !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
	}
	if _, err := ca.Open(t.Context(), ca.Config{TrustDomain: "td"}); err == nil {
		t.Error("Open without a store passed")
	}
	if _, err := ca.Open(t.Context(), ca.Config{TrustDomain: "TD", Store: memorystore.New()}); err == nil {
		t.Error("Open with a bad trust domain passed")
	}
}

func TestMemoryStore(t *testing.T) {
	s, ctx := memorystore.New(), t.Context()
	first, err := s.Load(ctx)
	if err != nil || len(first.Files) > 0 || first.Version != "" {
		t.Fatalf("empty store gave %v, %v", first, err)
	}
	data := []byte("x")
	if err := s.Save(ctx, ca.Stored{Files: map[string][]byte{"a": data}}); err != nil {
		t.Fatal(err)
	}
	data[0] = 'y' // the store has its own copy
	if err := s.Save(ctx, first); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("a stale save gave %v, want ErrConflict", err)
	}
	second, err := s.Load(ctx)
	if err != nil || string(second.Files["a"]) != "x" || second.Version == "" {
		t.Errorf("store gave %v, %v", second, err)
	}
	second.Files["a"][0] = 'z'
	if third, _ := s.Load(ctx); string(third.Files["a"]) != "x" {
		t.Error("a reader changed the store")
	}
}

func TestOrderMustBeApproved(t *testing.T) {
	o := newOffice(t)
	a := o.open()
	if _, err := a.Issue(t.Context(), approval.Order{}); !errors.Is(err, ca.ErrOrder) {
		t.Errorf("zero order: %v, want ErrOrder", err)
	}
	o.cfg.TrustDomain, o.cfg.Store = "other.example", memorystore.New()
	if _, err := o.open().Issue(t.Context(), o.order()); !errors.Is(err, ca.ErrOrder) {
		t.Errorf("order of another trust domain: %v, want ErrOrder", err)
	}
}

func TestIntermediateIsRenewed(t *testing.T) {
	o := newOffice(t)
	a, standby := o.open(), o.open()
	old := o.issue(a)
	status, err := a.Status()
	if err != nil || status.RootOffline || status.RenewAt.Sub(o.clock.Now()) < 240*day {
		t.Fatalf("status is %+v, %v", status, err)
	}
	o.clock.Add(status.RenewAt.Sub(o.clock.Now()) - time.Second)
	if a.NeedsRenewal() {
		t.Error("due before its time")
	}
	o.clock.Add(time.Second)
	if !a.NeedsRenewal() {
		t.Error("not due when its time has come")
	}
	bundle := a.Bundle()
	for _, replica := range []*ca.Authority{a, standby} {
		if err := replica.Renew(t.Context()); err != nil {
			t.Fatal(err)
		}
		if replica.NeedsRenewal() {
			t.Error("still due after Renew")
		}
	}
	fresh := o.issue(a)
	if bytes.Equal(fresh[1], old[1]) || !bytes.Equal(fresh[1], o.issue(standby)[1]) {
		t.Error("want one new intermediate, the same at both controllers")
	}
	if !bytes.Equal(bundle, a.Bundle()) {
		t.Error("the root changed with the intermediate")
	}
	if err := o.verify(fresh, bundle); err != nil {
		t.Error(err)
	}
	if parseDER(t, old[1]).Subject.String() == parseDER(t, fresh[1]).Subject.String() {
		t.Error("two intermediates have one name")
	}
	// What the old one issued stays good to its end.
	if _, err := keymgr.VerifyCertificate(old, bundle, parseDER(t, old[0]).NotAfter); err != nil {
		t.Error(err)
	}
}

// Near the end of the root, a new intermediate would not last longer; a certificate
// never outlives its intermediate, and one that could not live is not issued.
func TestEndOfRoot(t *testing.T) {
	o := newOffice(t)
	o.cfg.RootLifetime, o.cfg.IntermediateLifetime = 30*day, 20*day
	a := o.open()
	o.clock.Add(25 * day)
	if err := a.Renew(t.Context()); err == nil {
		if a.NeedsRenewal() {
			t.Error("due again right after Renew")
		}
	} else {
		t.Fatal(err)
	}
	o.clock.Add(3 * day)
	chain := o.issue(a)
	if leaf, end := parseDER(t, chain[0]), rootOf(t, a).NotAfter; !leaf.NotAfter.Equal(end) {
		t.Errorf("leaf ends %v, want %v with the root", leaf.NotAfter, end)
	}
	o.clock.Add(day) // two thirds of the last intermediate's life are over
	before := o.files()[ca.FileIntermediateCert]
	if err := a.Renew(t.Context()); err != nil || !bytes.Equal(before, o.files()[ca.FileIntermediateCert]) {
		t.Errorf("Renew made an intermediate that ends with the last one (%v)", err)
	}
	o.clock.Add(day - 9*time.Minute)
	if _, err := a.Issue(t.Context(), o.order()); !errors.Is(err, ca.ErrLifetime) {
		t.Errorf("nine minutes before the end: %v, want ErrLifetime", err)
	}
}

func TestStoredIntermediateOfOtherTrustDomain(t *testing.T) {
	o := newOffice(t)
	old := o.issue(o.open())
	o.cfg.TrustDomain = "other.example"
	a := o.open()
	if !bytes.Equal(rootOf(t, a).Raw, rootOf(t, o.open()).Raw) {
		t.Error("the root was replaced too")
	}
	if status, err := a.Status(); err != nil || status.Intermediate.Serial == parseDER(t, old[1]).SerialNumber.Text(16) {
		t.Errorf("the intermediate of the other trust domain stayed (%v)", err)
	}
}

func TestCorruptStoreIsNotOverwritten(t *testing.T) {
	for file, want := range map[string]error{
		ca.FileRootCert: ca.ErrRoot, ca.FileRootKey: ca.ErrRoot,
		ca.FileIntermediateCert: ca.ErrIntermediate, ca.FileIntermediateKey: ca.ErrIntermediate,
	} {
		o := newOffice(t)
		o.open()
		s, err := o.store.Load(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		s.Files[file] = []byte("x")
		if err := o.store.Save(t.Context(), s); err != nil {
			t.Fatal(err)
		}
		before := o.files()
		if _, err := ca.Open(t.Context(), o.cfg); !errors.Is(err, want) {
			t.Errorf("%s: error %v, want %v", file, err, want)
		}
		if !maps.EqualFunc(before, o.files(), bytes.Equal) {
			t.Errorf("%s: the store was changed", file)
		}
	}
}

func BenchmarkIssue(b *testing.B) {
	order := newOrder(b, 0)
	authority, err := ca.Open(b.Context(), ca.Config{TrustDomain: keytest.TrustDomain, Store: memorystore.New(), Clock: keytest.NewClock().Now})
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := authority.Issue(b.Context(), order); err != nil {
			b.Fatal(err)
		}
	}
}

func pemBlock(kind string, der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}
