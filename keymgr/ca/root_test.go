// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"net/url"
	"slices"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/extension"
	"github.com/sealane/sealane/keymgr/keytest"
)

// authority is a certificate with its key, made by hand for these tests.
type authority struct {
	cert *x509.Certificate
	key  crypto.Signer
}

func (a authority) pem() []byte { return keymgr.EncodeChain([][]byte{a.cert.Raw}) }

func (a authority) keyPEM(t *testing.T) []byte {
	t.Helper()
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		t.Fatal(err)
	}
	return pemBlock("PRIVATE KEY", der)
}

func ecKey(t *testing.T) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign makes a certificate for key; without issuer it signs itself.
func sign(t *testing.T, template *x509.Certificate, key crypto.Signer, issuer *authority) authority {
	t.Helper()
	now := keytest.NewClock().Now()
	template.SerialNumber = big.NewInt(now.UnixNano())
	if template.NotAfter.IsZero() {
		template.NotBefore, template.NotAfter = now.Add(-time.Hour), now.Add(5*365*day)
	}
	parent, signer := template, key
	if issuer != nil {
		parent, signer = issuer.cert, issuer.key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	return authority{parseDER(t, der), key}
}

// clusterCA returns a CA as kubeadm makes it for a cluster.
func clusterCA(t *testing.T) authority {
	t.Helper()
	return sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubernetes"}, DNSNames: []string{"kubernetes"},
		IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageDigitalSignature | x509.KeyUsageKeyEncipherment | x509.KeyUsageCertSign,
	}, rsaKey(t), nil)
}

// login says whom the API server takes the bearer of a chain for, as its x509
// authenticator does (k8s.io/apiserver/pkg/authentication/request/x509): the chain
// must be good for client authentication, and the user is the common name.
func login(chain [][]byte, root authority, now time.Time) (user string, ok bool) {
	opts := x509.VerifyOptions{
		Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: now,
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	opts.Roots.AddCert(root.cert)
	var leaf *x509.Certificate
	for i, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return "", false
		}
		if i == 0 {
			leaf = c
		} else {
			opts.Intermediates.AddCert(c)
		}
	}
	if _, err := leaf.Verify(opts); err != nil || leaf.Subject.CommonName == "" {
		return "", false
	}
	return leaf.Subject.CommonName, true
}

// given is an office below a root that is handed in.
func given(t *testing.T, root authority, shared bool) *office {
	t.Helper()
	o := newOffice(t)
	o.cfg.Root = ca.Root{Certificates: root.pem(), Key: root.keyPEM(t), Shared: shared}
	return o
}

// issuer returns the intermediate that the store holds, as a thief would have it.
func (o *office) issuer() *authority {
	o.t.Helper()
	files := o.files()
	chain, err := keymgr.DecodeChain(files[ca.FileIntermediateCert])
	if err != nil {
		o.t.Fatal(err)
	}
	block, _ := pem.Decode(files[ca.FileIntermediateKey])
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		o.t.Fatal(err)
	}
	return &authority{parseDER(o.t, chain[0]), key.(crypto.Signer)}
}

func clientUsage() []x509.ExtKeyUsage {
	return []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}
}

// With the cluster's own CA as the root, no certificate of ours is a login.
func TestNoLoginToAPIServer(t *testing.T) {
	root := clusterCA(t)
	o := given(t, root, true)
	a := o.open()
	now := o.clock.Now()

	admin := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubernetes-admin"}, ExtKeyUsage: clientUsage(),
	}, ecKey(t), &root)
	if user, ok := login([][]byte{admin.cert.Raw}, root, now); !ok || user != "kubernetes-admin" {
		t.Fatalf("an administrator is taken for %q, %v: the emulation is wrong", user, ok)
	}

	chain := o.issue(a)
	if err := o.verify(chain, a.Bundle()); err != nil {
		t.Fatalf("nodes do not accept it either: %v", err)
	}
	if user, ok := login(chain, root, now); ok {
		t.Errorf("a node certificate is a login of %q", user)
	}
	// Even the intermediate's key, stolen, makes no login below the shared root.
	forged := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubernetes-admin", Organization: []string{"system:masters"}}, ExtKeyUsage: clientUsage(),
	}, ecKey(t), o.issuer())
	if user, ok := login([][]byte{forged.cert.Raw, chain[1]}, root, now); ok {
		t.Errorf("a stolen intermediate makes a login of %q", user)
	}
}

// Below a root that is not shared, the empty subject alone is what denies a login;
// the mark is what stops the stolen key. This shows that each is needed.
func TestMarkIsWhatStopsStolenKey(t *testing.T) {
	root := clusterCA(t)
	o := given(t, root, false)
	a := o.open()
	chain := o.issue(a)
	if user, ok := login(chain, root, o.clock.Now()); ok {
		t.Errorf("a node certificate is a login of %q", user)
	}
	forged := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "kubernetes-admin"}, ExtKeyUsage: clientUsage(),
	}, ecKey(t), o.issuer())
	if _, ok := login([][]byte{forged.cert.Raw, chain[1]}, root, o.clock.Now()); !ok {
		t.Error("without the critical mark the forged login is refused: say so in Root.Shared")
	}
}

// What else the cluster's CA signs is no node, whatever it is named: only the
// marked intermediate issues node certificates.
func TestOthersOfSharedRootAreNoNodes(t *testing.T) {
	root := clusterCA(t)
	o := given(t, root, true)
	a := o.open()
	template := func() *x509.Certificate {
		return &x509.Certificate{
			URIs: []*url.URL{keytest.ID("a").URI(keytest.TrustDomain)}, ExtKeyUsage: clientUsage(),
			KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		}
	}
	direct := sign(t, template(), ecKey(t), &root)
	if err := o.verify([][]byte{direct.cert.Raw}, a.Bundle()); !errors.Is(err, keymgr.ErrCertificate) {
		t.Errorf("signed by the root itself: %v, want ErrCertificate", err)
	}
	other := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "other"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}, ecKey(t), &root)
	leaf := sign(t, template(), ecKey(t), &other)
	if err := o.verify([][]byte{leaf.cert.Raw, other.cert.Raw}, a.Bundle()); !errors.Is(err, keymgr.ErrCertificate) {
		t.Errorf("signed by another intermediate: %v, want ErrCertificate", err)
	}
	// The same leaf from the marked one passes, so that is what was missing.
	good := sign(t, template(), ecKey(t), o.issuer())
	if err := o.verify([][]byte{good.cert.Raw, o.issuer().cert.Raw}, a.Bundle()); err != nil {
		t.Error(err)
	}
}

// What the intermediate's key can and cannot make in the eyes of every verifier
// that follows RFC 5280, with or without the mark.
func TestIntermediateIsConstrained(t *testing.T) {
	root := clusterCA(t)
	o := given(t, root, false)
	o.open()
	issuer := o.issuer()
	verify := func(chain ...*x509.Certificate) error {
		opts := x509.VerifyOptions{
			Roots: x509.NewCertPool(), Intermediates: x509.NewCertPool(), CurrentTime: o.clock.Now(),
			KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
		}
		opts.Roots.AddCert(root.cert)
		opts.Intermediates.AddCert(issuer.cert)
		for _, c := range chain[1:] {
			opts.Intermediates.AddCert(c)
		}
		_, err := chain[0].Verify(opts)
		return err
	}
	good := []*url.URL{keytest.ID("a").URI(keytest.TrustDomain)}
	if err := verify(sign(t, &x509.Certificate{URIs: good, ExtKeyUsage: clientUsage()}, ecKey(t), issuer).cert); err != nil {
		t.Fatalf("a node's name: %v", err)
	}
	for name, template := range map[string]*x509.Certificate{
		"DNS name":            {DNSNames: []string{"kubernetes.default.svc"}},
		"short DNS name":      {DNSNames: []string{"kubernetes"}},
		"IPv4 address":        {IPAddresses: []net.IP{net.IPv4(10, 96, 0, 1)}},
		"IPv6 address":        {IPAddresses: []net.IP{net.ParseIP("fd00::1")}},
		"email address":       {EmailAddresses: []string{"root@example.org"}},
		"other trust domain":  {URIs: []*url.URL{keytest.ID("a").URI("other.example")}},
		"node and DNS name":   {URIs: good, DNSNames: []string{"kubernetes"}},
		"longer trust domain": {URIs: []*url.URL{keytest.ID("a").URI("x" + keytest.TrustDomain)}},
	} {
		if err := verify(sign(t, template, ecKey(t), issuer).cert); err == nil {
			t.Errorf("%s: verifies", name)
		}
	}
	sub := sign(t, &x509.Certificate{
		Subject: pkix.Name{CommonName: "sub"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		ExtraExtensions: []pkix.Extension{extension.NodeIssuer(false)},
	}, ecKey(t), issuer)
	leaf := sign(t, &x509.Certificate{URIs: good, ExtKeyUsage: clientUsage()}, ecKey(t), &sub)
	if err := verify(leaf.cert, sub.cert); err == nil {
		t.Error("an authority below the intermediate verifies")
	}
}

// Each leaf has one thing that no node certificate has.
func TestNodesRefuseOddLeaves(t *testing.T) {
	o := newOffice(t)
	bundle := o.open().Bundle()
	issuer := o.issuer()
	for name, tc := range map[string]struct {
		change func(*x509.Certificate)
		key    crypto.Signer
	}{
		"client only":    {func(c *x509.Certificate) { c.ExtKeyUsage = clientUsage()[:1] }, ecKey(t)},
		"server only":    {func(c *x509.Certificate) { c.ExtKeyUsage = clientUsage()[1:] }, ecKey(t)},
		"no usage":       {func(c *x509.Certificate) { c.ExtKeyUsage = nil }, ecKey(t)},
		"no signature":   {func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, ecKey(t)},
		"RSA":            {func(*x509.Certificate) {}, rsaKey(t)},
		"two names":      {func(c *x509.Certificate) { c.URIs = append(c.URIs, keytest.ID("b").URI(keytest.TrustDomain)) }, ecKey(t)},
		"no node's name": {func(c *x509.Certificate) { c.URIs[0].Path = "/pod/a/b" }, ecKey(t)},
		"no name":        {func(c *x509.Certificate) { c.URIs, c.Subject = nil, pkix.Name{CommonName: "a"} }, ecKey(t)},
		"authority":      {func(c *x509.Certificate) { c.IsCA = true }, ecKey(t)},
		"bad pod CIDRs": {func(c *x509.Certificate) {
			ext, err := extension.PodCIDRs(nil)
			if err != nil {
				t.Fatal(err)
			}
			ext.Value = []byte("x")
			c.ExtraExtensions = []pkix.Extension{ext}
		}, ecKey(t)},
	} {
		template := &x509.Certificate{
			URIs: []*url.URL{keytest.ID("a").URI(keytest.TrustDomain)}, ExtKeyUsage: clientUsage(),
			KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		}
		tc.change(template)
		leaf := sign(t, template, tc.key, issuer)
		err := o.verify([][]byte{leaf.cert.Raw, issuer.cert.Raw}, bundle)
		if !errors.Is(err, keymgr.ErrCertificate) {
			t.Errorf("%s: error %v, want ErrCertificate", name, err)
		}
	}
}

func TestRootHandedIn(t *testing.T) {
	ec, rsaRoot := sign(t, caTemplate(), ecKey(t), nil), clusterCA(t)
	sec1, err := x509.MarshalECPrivateKey(ec.key.(*ecdsa.PrivateKey))
	if err != nil {
		t.Fatal(err)
	}
	for name, root := range map[string]ca.Root{
		"EC, PKCS 8":           {Certificates: ec.pem(), Key: ec.keyPEM(t)},
		"EC, SEC 1":            {Certificates: ec.pem(), Key: pemBlock("EC PRIVATE KEY", sec1)},
		"EC after parameters":  {Certificates: ec.pem(), Key: slices.Concat(pemBlock("EC PARAMETERS", []byte{6, 0}), pemBlock("EC PRIVATE KEY", sec1))},
		"RSA, PKCS 8":          {Certificates: rsaRoot.pem(), Key: rsaRoot.keyPEM(t)},
		"RSA, shared":          {Certificates: rsaRoot.pem(), Key: rsaRoot.keyPEM(t), Shared: true},
		"with a second root":   {Certificates: slices.Concat(ec.pem(), rsaRoot.pem()), Key: ec.keyPEM(t)},
		"a root with a parent": {Certificates: sign(t, caTemplate(), ec.key, &rsaRoot).pem(), Key: ec.keyPEM(t)},
	} {
		o := newOffice(t)
		o.cfg.Root = root
		a := o.open()
		if err := o.verify(o.issue(a), a.Bundle()); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		if _, stored := o.files()[ca.FileRootKey]; stored {
			t.Errorf("%s: the key that was handed in lies in the store", name)
		}
		roots, err := keymgr.ParseBundle(a.Bundle())
		if want, _ := keymgr.ParseBundle(root.Certificates); err != nil || len(roots) != len(want) {
			t.Errorf("%s: bundle has %d roots, want %d", name, len(roots), len(want))
		}
		before := o.files()[ca.FileIntermediateCert]
		o.open()
		if after := o.files()[ca.FileIntermediateCert]; string(before) != string(after) {
			t.Errorf("%s: a restart made a new intermediate", name)
		}
	}
}

func caTemplate() *x509.Certificate {
	return &x509.Certificate{
		Subject: pkix.Name{CommonName: "operator's root"}, IsCA: true, BasicConstraintsValid: true,
		KeyUsage: x509.KeyUsageCertSign, MaxPathLen: -1,
	}
}

func TestRootThatCannotServe(t *testing.T) {
	good := sign(t, caTemplate(), ecKey(t), nil)
	with := func(change func(*x509.Certificate)) ca.Root {
		template := caTemplate()
		change(template)
		root := sign(t, template, ecKey(t), nil)
		return ca.Root{Certificates: root.pem(), Key: root.keyPEM(t)}
	}
	now := keytest.NewClock().Now()
	for name, tc := range map[string]struct {
		root ca.Root
		want error
	}{
		"no certificate":  {ca.Root{Certificates: []byte("x"), Key: good.keyPEM(t)}, ca.ErrRoot},
		"key of another":  {ca.Root{Certificates: good.pem(), Key: sign(t, caTemplate(), ecKey(t), nil).keyPEM(t)}, ca.ErrRoot},
		"no PEM key":      {ca.Root{Certificates: good.pem(), Key: []byte("x")}, ca.ErrRoot},
		"encrypted key":   {ca.Root{Certificates: good.pem(), Key: pemBlock("ENCRYPTED PRIVATE KEY", []byte{1})}, ca.ErrRoot},
		"key is no key":   {ca.Root{Certificates: good.pem(), Key: pemBlock("PRIVATE KEY", []byte{1})}, ca.ErrRoot},
		"only parameters": {ca.Root{Certificates: good.pem(), Key: pemBlock("EC PARAMETERS", []byte{1})}, ca.ErrRoot},
		"no authority":    {with(func(c *x509.Certificate) { c.IsCA, c.KeyUsage = false, x509.KeyUsageDigitalSignature }), ca.ErrRoot},
		"path length 0":   {with(func(c *x509.Certificate) { c.MaxPathLen, c.MaxPathLenZero = 0, true }), ca.ErrRoot},
		"may not sign":    {with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageCRLSign }), ca.ErrRoot},
		"servers only":    {with(func(c *x509.Certificate) { c.ExtKeyUsage = clientUsage()[1:] }), ca.ErrIntermediate},
		"other names only": {with(func(c *x509.Certificate) {
			c.PermittedURIDomains, c.PermittedDNSDomainsCritical = []string{"other.example"}, true
		}), ca.ErrIntermediate},
		"expired": {with(func(c *x509.Certificate) { c.NotBefore, c.NotAfter = now.Add(-9*day), now.Add(-day) }), ca.ErrIntermediate},
		"offline": {ca.Root{Certificates: good.pem()}, ca.ErrRootOffline},
	} {
		o := newOffice(t)
		o.cfg.Root = tc.root
		if _, err := ca.Open(t.Context(), o.cfg); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
		if len(o.files()) > 0 {
			t.Errorf("%s: something was stored", name)
		}
	}
}

// A root may be younger than the backdating, or end before an intermediate that was
// handed in: no certificate begins before, or ends after, any that is above it.
func TestLivesAreNested(t *testing.T) {
	now := keytest.NewClock().Now()
	template := caTemplate()
	template.NotBefore, template.NotAfter = now.Add(-time.Minute), now.Add(2*day)
	root := sign(t, template, ecKey(t), nil)
	o := given(t, root, false)
	chain := o.issue(o.open())
	for _, der := range chain {
		if c := parseDER(t, der); c.NotBefore.Before(root.cert.NotBefore) || c.NotAfter.After(root.cert.NotAfter) {
			t.Errorf("%q lives from %v to %v, its root from %v to %v", c.Subject, c.NotBefore, c.NotAfter, root.cert.NotBefore, root.cert.NotAfter)
		}
	}

	long := caTemplate()
	long.ExtraExtensions = []pkix.Extension{extension.NodeIssuer(false)}
	long.MaxPathLen, long.MaxPathLenZero = 0, true
	intermediate := sign(t, long, ecKey(t), &root)
	o.cfg.Root = ca.Root{Certificates: root.pem(), Intermediate: intermediate.pem(), IntermediateKey: intermediate.keyPEM(t)}
	if leaf := parseDER(t, o.issue(o.open())[0]); leaf.NotAfter.After(root.cert.NotAfter) {
		t.Errorf("leaf ends %v, its root %v", leaf.NotAfter, root.cert.NotAfter)
	}
}

// Root changes hands: the stored intermediate of the old root is not used any more.
func TestRootReplaced(t *testing.T) {
	o := newOffice(t)
	own := o.open()
	root := sign(t, caTemplate(), ecKey(t), nil)
	o.cfg.Root = ca.Root{Certificates: root.pem(), Key: root.keyPEM(t)}
	a := o.open()
	if err := o.verify(o.issue(a), root.pem()); err != nil {
		t.Error(err)
	}
	if err := o.verify(o.issue(a), own.Bundle()); !errors.Is(err, keymgr.ErrChain) {
		t.Errorf("below the former root: %v, want ErrChain", err)
	}
	// The same root, but others trust it now: the intermediate must get the mark.
	o.cfg.Root.Shared = true
	a = o.open()
	if user, ok := login(o.issue(a), root, o.clock.Now()); ok {
		t.Errorf("a login of %q", user)
	}
	if len(parseDER(t, o.issue(a)[1]).UnhandledCriticalExtensions) != 1 {
		t.Error("the intermediate was not made anew with a critical mark")
	}
}

func TestRootOffline(t *testing.T) {
	o := newOffice(t)
	o.open()
	o.drop(ca.FileRootKey)
	a := o.open()
	status, err := a.Status()
	if err != nil || !status.RootOffline {
		t.Fatalf("status is %+v, %v", status, err)
	}
	if err := o.verify(o.issue(a), a.Bundle()); err != nil {
		t.Error(err)
	}
	o.clock.Add(ca.DefaultIntermediateLifetime - day)
	if !a.NeedsRenewal() {
		t.Error("the operator is not told that the root is wanted")
	}
	if err := a.Renew(t.Context()); err != nil {
		t.Errorf("while the intermediate lasts: %v", err)
	}
	o.issue(a)
	o.clock.Add(2 * day)
	if err := a.Renew(t.Context()); !errors.Is(err, ca.ErrRootOffline) {
		t.Errorf("after the intermediate's end: %v, want ErrRootOffline", err)
	}
}

func TestIntermediateHandedIn(t *testing.T) {
	maker := newOffice(t)
	maker.open()
	files := maker.files()
	good := ca.Root{
		Certificates: files[ca.FileRootCert],
		Intermediate: files[ca.FileIntermediateCert], IntermediateKey: files[ca.FileIntermediateKey],
	}
	o := newOffice(t)
	o.cfg.Root = good
	a := o.open()
	if err := o.verify(o.issue(a), files[ca.FileRootCert]); err != nil {
		t.Error(err)
	}
	if stored := o.files(); len(stored) != 1 || stored[ca.FileBundle] == nil {
		t.Error("what was handed in lies in the store")
	}

	root := sign(t, caTemplate(), ecKey(t), nil)
	plain := sign(t, caTemplate(), ecKey(t), &root)
	for name, bad := range map[string]ca.Root{
		"without the mark": {Certificates: root.pem(), Intermediate: plain.pem(), IntermediateKey: plain.keyPEM(t)},
		"of another root":  {Certificates: root.pem(), Intermediate: good.Intermediate, IntermediateKey: good.IntermediateKey},
		"key of another":   {Certificates: good.Certificates, Intermediate: good.Intermediate, IntermediateKey: plain.keyPEM(t)},
		"two of them":      {Certificates: good.Certificates, Intermediate: slices.Concat(good.Intermediate, plain.pem()), IntermediateKey: good.IntermediateKey},
		"not for a shared root": {
			Certificates: good.Certificates, Intermediate: good.Intermediate, IntermediateKey: good.IntermediateKey, Shared: true,
		},
	} {
		o := newOffice(t)
		o.cfg.Root = bad
		if _, err := ca.Open(t.Context(), o.cfg); !errors.Is(err, ca.ErrIntermediate) {
			t.Errorf("%s: error %v, want ErrIntermediate", name, err)
		}
	}
}
