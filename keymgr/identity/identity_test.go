// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity_test

import (
	"bytes"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"io/fs"
	"net"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/renewal"
)

// bed is a directory in which identities are opened again and again.
type bed struct {
	*keytest.Cluster
	t   *testing.T
	dir string
}

func newBed(t *testing.T) *bed {
	t.Helper()
	return &bed{Cluster: keytest.NewCluster(t), t: t, dir: filepath.Join(t.TempDir(), "keys")}
}

func (b *bed) open() *identity.Identity { return b.Identity(keytest.ID("a"), b.dir) }

func (b *bed) node(podCIDRs ...string) *keytest.Node {
	b.t.Helper()
	n := b.Node("a", podCIDRs...)
	n.Identity = b.open()
	return n
}

func csrOf(t *testing.T, id *identity.Identity) *x509.CertificateRequest {
	t.Helper()
	data, err := id.CSR()
	if err != nil {
		t.Fatal(err)
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != "CERTIFICATE REQUEST" || len(rest) > 0 {
		t.Fatalf("CSR is %q", data)
	}
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

func TestCSRHasOneURIAndNoSubject(t *testing.T) {
	csr := csrOf(t, newBed(t).open())
	if err := csr.CheckSignature(); err != nil {
		t.Error(err)
	}
	if !bytes.Equal(csr.RawSubject, []byte{0x30, 0}) {
		t.Errorf("subject is %q, want none", csr.Subject)
	}
	want := keytest.ID("a").URI(keytest.TrustDomain).String()
	if len(csr.URIs) != 1 || csr.URIs[0].String() != want || len(csr.Extensions) != 1 {
		t.Errorf("URIs are %v in %d extensions, want %s in one", csr.URIs, len(csr.Extensions), want)
	}
}

func TestIdentitySurvivesRestart(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	key, err := n.Identity.WGKeys().Ensure()
	if err != nil {
		t.Fatal(err)
	}
	cert, _ := n.Identity.Certificate()
	renew := n.Identity.RenewAt()
	signed := n.Sign()
	hash, err := n.Identity.KeyHash()
	if err != nil || hash != cert.SPKI {
		t.Errorf("KeyHash is %x, %v; the certificate has %x", hash, err, cert.SPKI)
	}

	again := b.open()
	if got, ok := again.Certificate(); !ok || got != cert {
		t.Errorf("certificate is %+v, want %+v", got, cert)
	}
	if got := again.RenewAt(); !got.Equal(renew) {
		t.Errorf("renewal is at %v, was at %v before the restart", got, renew)
	}
	if got, ok := again.Last(); !ok || !got.Equal(signed) {
		t.Errorf("last statement is %+v, want %+v", got, signed)
	}
	if got := again.WGKeys().All(); !slices.Equal(got, []identity.WGKey{key}) {
		t.Errorf("wireguard keys are %v, want %v", got, key)
	}
}

// The daemon saves the bundle at each pass; only another one costs a write.
func TestBundleIsWrittenWhenItChanges(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	save := func(bundle []byte) os.FileInfo {
		t.Helper()
		if err := n.Identity.SaveBundle(bundle); err != nil {
			t.Fatal(err)
		}
		info, err := os.Stat(filepath.Join(b.dir, "bundle.pem"))
		if err != nil {
			t.Fatal(err)
		}
		return info
	}
	bundle := b.Authority.Bundle()
	first := save(bundle)
	if again := save(bundle); !os.SameFile(first, again) {
		t.Error("the same bundle was written again")
	}
	both := append(slices.Clone(bundle), newBed(t).Authority.Bundle()...)
	if next := save(both); os.SameFile(first, next) {
		t.Error("another bundle was not written")
	}
	if stored, err := n.Identity.Bundle(); err != nil || !bytes.Equal(stored, both) {
		t.Errorf("stored is %q, %v", stored, err)
	}
}

func TestFilesArePrivate(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	if _, err := n.Identity.WGKeys().Ensure(); err != nil {
		t.Fatal(err)
	}
	n.Sign()
	if err := n.Identity.SaveBundle(b.Authority.Bundle()); err != nil {
		t.Fatal(err)
	}
	count := 0
	err := filepath.WalkDir(b.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		if count++; info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return nil
	})
	if err != nil || count != 7 {
		t.Errorf("%d files and directories, %v; want 7", count, err)
	}
}

// Keys never pass to another identity, and files of others are not touched.
func TestOtherIdentityStartsFresh(t *testing.T) {
	for name, id := range map[string]keymgr.NodeID{
		"node made anew": {Name: "a", UID: "second-life"},
		"other node":     keytest.ID("b"),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBed(t)
			n := b.node("10.244.1.0/24")
			b.Certify(n)
			old, err := n.Identity.WGKeys().Ensure()
			if err != nil {
				t.Fatal(err)
			}
			n.Sign()
			if err := n.Identity.SaveBundle(b.Authority.Bundle()); err != nil {
				t.Fatal(err)
			}
			other := filepath.Join(b.dir, "notes.txt")
			if err := os.WriteFile(other, []byte("mine"), 0o600); err != nil {
				t.Fatal(err)
			}
			oldHash, _ := n.Identity.KeyHash()

			next := b.Identity(id, b.dir)
			if hash, err := next.KeyHash(); err != nil || hash == oldHash {
				t.Errorf("node key was kept (%v)", err)
			}
			if _, ok := next.Certificate(); ok {
				t.Error("certificate was kept")
			}
			if _, ok := next.Last(); ok {
				t.Error("statement was kept")
			}
			if bundle, err := next.Bundle(); err != nil || bundle != nil {
				t.Errorf("bundle was kept (%v)", err)
			}
			if key, err := next.WGKeys().Ensure(); err != nil || key.Public == old.Public {
				t.Errorf("wireguard key was kept (%v)", err)
			}
			if _, err := os.Stat(other); err != nil {
				t.Errorf("a foreign file is gone: %v", err)
			}
		})
	}
}

func TestSetCertificateRefuses(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	kept, _ := n.Identity.Certificate()
	csr, err := n.Identity.CSR()
	if err != nil {
		t.Fatal(err)
	}
	good := b.Issue(csr, n.Live)
	stranger := b.Node("x", "10.244.9.0/24")
	foreign := keytest.NewCluster(t)
	otherCA, err := ca.Open(t.Context(), ca.Config{TrustDomain: "other.example", Store: memorystore.New(), Clock: b.Clock.Now})
	if err != nil {
		t.Fatal(err)
	}
	cases := map[string]struct {
		chain  [][]byte
		bundle []byte
		want   error
	}{
		"other key":      {stranger.Sign().Chain, b.Authority.Bundle(), keymgr.ErrKeyMismatch},
		"foreign root":   {good, foreign.Authority.Bundle(), keymgr.ErrChain},
		"no bundle":      {good, nil, keymgr.ErrBundle},
		"leaf only":      {good[:1], b.Authority.Bundle(), keymgr.ErrChain},
		"wrong order":    {[][]byte{good[1], good[0]}, b.Authority.Bundle(), keymgr.ErrCertificate},
		"nothing":        {nil, b.Authority.Bundle(), keymgr.ErrTooLarge},
		"other identity": {issueAs(t, n, b.Authority, stranger.Live.ID, keytest.TrustDomain), b.Authority.Bundle(), keymgr.ErrIdentity},
		"other domain":   {issueAs(t, n, otherCA, n.Live.ID, "other.example"), otherCA.Bundle(), keymgr.ErrTrustDomain},
	}
	for name, tc := range cases {
		if err := n.Identity.SetCertificate(tc.chain, tc.bundle); !errors.Is(err, tc.want) {
			t.Errorf("%s: error %v, want %v", name, err, tc.want)
		}
	}
	b.Clock.Add(8 * 24 * time.Hour)
	if err := n.Identity.SetCertificate(good, b.Authority.Bundle()); !errors.Is(err, keymgr.ErrExpired) {
		t.Errorf("expired: error %v, want ErrExpired", err)
	}
	b.Clock.Add(-9 * 24 * time.Hour)
	if err := n.Identity.SetCertificate(good, b.Authority.Bundle()); !errors.Is(err, keymgr.ErrNotYetValid) {
		t.Errorf("from the future: error %v, want ErrNotYetValid", err)
	}
	if got, _ := n.Identity.Certificate(); got != kept {
		t.Errorf("certificate is %+v, want the old one, %+v", got, kept)
	}
	if got, _ := b.open().Certificate(); got != kept {
		t.Errorf("certificate on disk is %+v, want the old one, %+v", got, kept)
	}
}

// issueAs returns a certificate for a node's key under another name, as a signer
// that was misled might issue it.
func issueAs(t *testing.T, n *keytest.Node, authority *ca.Authority, id keymgr.NodeID, trustDomain string) [][]byte {
	t.Helper()
	cert, err := n.Identity.TLSCertificate()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.CertificateRequest{URIs: []*url.URL{id.URI(trustDomain)}}
	der, err := x509.CreateCertificateRequest(rand.Reader, template, cert.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	request, policy, facts := keytest.Scene(csr, keymgr.LiveNode{ID: id}, time.Now())
	policy.TrustDomain = trustDomain
	order, err := approval.Approve(request, policy, facts)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := authority.Issue(t.Context(), order)
	if err != nil {
		t.Fatal(err)
	}
	return chain
}

func TestCertificateThatDoesNotFitIsNone(t *testing.T) {
	for name, spoil := range map[string]func(dir string) error{
		"no certificate": func(dir string) error { return os.Remove(filepath.Join(dir, "node.crt")) },
		"rubbish":        func(dir string) error { return os.WriteFile(filepath.Join(dir, "node.crt"), []byte("x"), 0o600) },
		"bad DER": func(dir string) error {
			return os.WriteFile(filepath.Join(dir, "node.crt"), keymgr.EncodeChain([][]byte{{1}, {2}}), 0o600)
		},
		"other key": func(dir string) error { return os.Remove(filepath.Join(dir, "node.key")) },
	} {
		b := newBed(t)
		b.Certify(b.node())
		if err := spoil(b.dir); err != nil {
			t.Fatal(err)
		}
		id := b.open()
		if cert, ok := id.Certificate(); ok {
			t.Errorf("%s: certificate is %+v, want none", name, cert)
		}
		if need := id.NeedsCertificate(nil); need != identity.NeedFirst {
			t.Errorf("%s: NeedsCertificate is %q, want %q", name, need, identity.NeedFirst)
		}
		if _, err := id.TLSCertificate(); !errors.Is(err, identity.ErrNoCertificate) {
			t.Errorf("%s: TLSCertificate gave %v, want ErrNoCertificate", name, err)
		}
		if at := id.RenewAt(); !at.IsZero() {
			t.Errorf("%s: RenewAt is %v, want zero", name, at)
		}
	}
}

func TestCorruptFilesAreNamed(t *testing.T) {
	for _, name := range []string{"node.key", "statement.json", "wg-5.key"} {
		b := newBed(t)
		b.Certify(b.node())
		if err := os.WriteFile(filepath.Join(b.dir, name), []byte("{}"), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := identity.Open(identity.Config{Dir: b.dir, Node: keytest.ID("a"), TrustDomain: keytest.TrustDomain})
		if !errors.Is(err, keymgr.ErrCorrupt) || !strings.Contains(err.Error(), filepath.Join(b.dir, name)) {
			t.Errorf("%s: error %v, want ErrCorrupt with the path", name, err)
		}
	}
}

func TestOpenIdentityRefusesBadNames(t *testing.T) {
	for _, cfg := range []identity.Config{
		{Node: keymgr.NodeID{Name: "A", UID: "u"}, TrustDomain: "td"},
		{Node: keymgr.NodeID{Name: "a", UID: ""}, TrustDomain: "td"},
		{Node: keymgr.NodeID{Name: "a", UID: "u"}, TrustDomain: "10.0.0.1"},
	} {
		cfg.Dir = t.TempDir()
		if _, err := identity.Open(cfg); err == nil {
			t.Errorf("%+v was taken", cfg)
		}
	}
}

func TestNeedsCertificate(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	b.Certify(n)
	at := n.Identity.RenewAt()
	cert, _ := n.Identity.Certificate()
	if share := float64(at.Sub(cert.NotBefore)) / float64(cert.NotAfter.Sub(cert.NotBefore)); share < 0.5 || share > 0.7 {
		t.Errorf("renewal at %v of the certificate's life, want 0.5 to 0.7", share)
	}
	check := func(want string, podCIDRs ...netip.Prefix) {
		t.Helper()
		if got := n.Identity.NeedsCertificate(podCIDRs); got != want {
			t.Errorf("at %v: NeedsCertificate is %q, want %q", b.Clock.Now(), got, want)
		}
	}
	check("", n.Live.PodCIDRs...)
	check(identity.NeedPodCIDRs, netip.MustParsePrefix("10.244.2.0/24"))
	b.Clock.Add(at.Sub(b.Clock.Now()) - time.Second)
	check("", n.Live.PodCIDRs...)
	b.Clock.Add(time.Second)
	check(identity.NeedDue, n.Live.PodCIDRs...)
	b.Certify(n)
	check("", n.Live.PodCIDRs...)
}

func TestBundleOnDisk(t *testing.T) {
	b := newBed(t)
	id := b.open()
	if err := id.SaveBundle([]byte("x")); !errors.Is(err, keymgr.ErrBundle) {
		t.Errorf("SaveBundle(x) = %v, want ErrBundle", err)
	}
	if err := id.SaveBundle(b.Authority.Bundle()); err != nil {
		t.Fatal(err)
	}
	if got, err := b.open().Bundle(); err != nil || !bytes.Equal(got, b.Authority.Bundle()) {
		t.Errorf("bundle came back as %q, %v", got, err)
	}
}

// TestPeek looks at an identity without claiming it.
func TestPeek(t *testing.T) {
	c := keytest.NewCluster(t)
	dir, id := t.TempDir(), keytest.ID("a")
	if _, err := identity.Peek(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("empty: %v", err)
	}
	own := c.Identity(id, dir)
	if _, err := identity.Peek(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("without roots: %v", err)
	}
	if err := own.SaveBundle(c.Authority.Bundle()); err != nil {
		t.Fatal(err)
	}
	want := identity.Owner{Node: id, TrustDomain: keytest.TrustDomain}
	if got, err := identity.Peek(dir); err != nil || got != want {
		t.Errorf("%+v, %v; want %+v", got, err, want)
	}
	for _, name := range []string{"bundle.pem", "identity.json"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := identity.Peek(dir); err == nil {
			t.Errorf("spoilt %s: no error", name)
		}
	}
}

// Two nodes meet over mutual TLS with nothing but their node certificates.
func TestTLSBetweenNodes(t *testing.T) {
	c := keytest.NewCluster(t)
	a, b := c.Node("a"), c.Node("b")
	config := func(n *keytest.Node, seen *keymgr.NodeID) *tls.Config {
		return &tls.Config{
			MinVersion: tls.VersionTLS13, InsecureSkipVerify: true, ClientAuth: tls.RequireAnyClientCert,
			GetCertificate:       func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return n.Identity.TLSCertificate() },
			GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return n.Identity.TLSCertificate() },
			VerifyConnection: func(cs tls.ConnectionState) error {
				var chain [][]byte
				for _, cert := range cs.PeerCertificates {
					chain = append(chain, cert.Raw)
				}
				peer, err := keymgr.VerifyCertificate(chain, c.Authority.Bundle(), c.Clock.Now())
				*seen = peer.Node
				return err
			},
		}
	}
	var byServer, byClient keymgr.NodeID
	left, right := net.Pipe()
	server := tls.Server(right, config(b, &byServer))
	done := make(chan error, 1)
	go func() { done <- server.Handshake() }()
	client := tls.Client(left, config(a, &byClient))
	if err := client.Handshake(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	if byClient != b.Live.ID || byServer != a.Live.ID {
		t.Errorf("client saw %v and server saw %v, want %v and %v", byClient, byServer, b.Live.ID, a.Live.ID)
	}
}

func TestNeedsRoot(t *testing.T) {
	b := newBed(t)
	n := b.node("10.244.1.0/24")
	if why, _ := n.Identity.NeedsRoot(b.Authority.Bundle(), nil); why != "" {
		t.Errorf("%q without a certificate, which is wanted anyway", why)
	}
	b.Certify(n)
	bundle, other := b.Authority.Bundle(), keytest.NewCluster(t).Authority.Bundle()
	status, err := b.Authority.Status()
	if err != nil {
		t.Fatal(err)
	}
	w := renewal.Window{Root: status.Roots[0].KeyID, From: b.Clock.Now(), To: b.Clock.Now().Add(time.Hour)}
	if why, _ := n.Identity.NeedsRoot(bundle, &w); why != "" {
		t.Errorf("%q, but the certificate is below that root", why)
	}
	w.Root = "0102"
	why, at := n.Identity.NeedsRoot(bundle, &w)
	if why != identity.NeedRoot || at.Before(w.From) || !at.Before(w.To) {
		t.Errorf("%q at %v, window %+v", why, at, w)
	}
	if _, again := b.open().NeedsRoot(bundle, &w); !again.Equal(at) {
		t.Errorf("drawn again: %v and %v", at, again)
	}
	if why, at := n.Identity.NeedsRoot(other, nil); why != identity.NeedTrusted || !at.Equal(b.Clock.Now()) {
		t.Errorf("%q at %v with another bundle", why, at)
	}
	if why, _ := n.Identity.NeedsRoot([]byte("x"), &w); why != "" {
		t.Errorf("%q with a bundle that is none", why)
	}
}
