// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"net"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/keytest"
)

// application is a request that is approved, until a test changes one thing.
type application struct {
	t *testing.T
	// key and template make request.CSR.
	key      crypto.Signer
	template *x509.CertificateRequest

	request ca.Request
	policy  ca.Policy
	facts   ca.Facts
}

func newApplication(t *testing.T) *application {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	live := keymgr.LiveNode{ID: keytest.ID("a"), PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")}}
	a := &application{t: t, key: key, template: &x509.CertificateRequest{
		URIs: []*url.URL{live.ID.URI(keytest.TrustDomain)},
	}}
	a.request, a.policy, a.facts = keytest.Scene(nil, live, keytest.NewClock().Now())
	return a
}

// sign makes the CSR out of key and template.
func (a *application) sign() {
	a.t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, a.template, a.key)
	if err != nil {
		a.t.Fatal(err)
	}
	a.request.CSR = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func (a *application) hash() [32]byte {
	a.t.Helper()
	der, err := x509.MarshalPKIXPublicKey(a.key.Public())
	if err != nil {
		a.t.Fatal(err)
	}
	return sha256.Sum256(der)
}

func TestApproveGoodRequest(t *testing.T) {
	a := newApplication(t)
	a.sign()
	order, err := ca.Approve(a.request, a.policy, a.facts)
	if err != nil {
		t.Fatal(err)
	}
	if order.Node() != keytest.ID("a") || order.TrustDomain() != keytest.TrustDomain ||
		order.Lifetime() != ca.DefaultLeafLifetime || !order.PublicKey().Equal(a.key.Public()) ||
		!slices.Equal(order.PodCIDRs(), a.facts.Node.PodCIDRs) {
		t.Errorf("order is %+v", order)
	}
}

// The request that this project's own agent makes is approved.
func TestApproveOwnCSR(t *testing.T) {
	c := keytest.NewCluster(t)
	id := c.Identity(keytest.ID("a"), t.TempDir())
	csr, err := id.CSR()
	if err != nil {
		t.Fatal(err)
	}
	request, policy, facts := keytest.Scene(csr, keymgr.LiveNode{ID: id.Node()}, c.Clock.Now())
	if _, err := ca.Approve(request, policy, facts); err != nil {
		t.Error(err)
	}
}

// Each case changes one thing; the message must name the fields or values in says.
func TestApproveDenies(t *testing.T) {
	type edit = func(*application)
	uri := func(s string) []*url.URL {
		u, err := url.Parse(s)
		if err != nil {
			t.Fatal(err)
		}
		return []*url.URL{u}
	}
	cases := []struct {
		name string
		want ca.Reason
		says string
		edit edit
	}{
		{"other signer", ca.ReasonSignerName, "kubernetes.io/kube-apiserver-client", func(a *application) { a.request.SignerName = "kubernetes.io/kube-apiserver-client" }},
		{"other service account", ca.ReasonUsername, "sealane-wireguard", func(a *application) {
			a.request.Username = "system:serviceaccount:sealane-system:sealane-wireguard"
		}},
		{"other namespace", ca.ReasonUsername, "default", func(a *application) {
			a.request.Username = "system:serviceaccount:default:sealane-agent"
		}},
		{"a user", ca.ReasonUsername, "admin", func(a *application) { a.request.Username = "admin" }},
		{"no user", ca.ReasonUsername, "spec.username", func(a *application) { a.request.Username = "" }},
		{"no extra", ca.ReasonExtra, ca.ExtraNodeName, func(a *application) { a.request.Extra = nil }},
		{"no node name", ca.ReasonExtra, ca.ExtraNodeName, func(a *application) { delete(a.request.Extra, ca.ExtraNodeName) }},
		{"no node UID", ca.ReasonExtra, ca.ExtraNodeUID, func(a *application) { delete(a.request.Extra, ca.ExtraNodeUID) }},
		{"no pod name", ca.ReasonExtra, ca.ExtraPodName, func(a *application) { delete(a.request.Extra, ca.ExtraPodName) }},
		{"no pod UID", ca.ReasonExtra, ca.ExtraPodUID, func(a *application) { delete(a.request.Extra, ca.ExtraPodUID) }},
		{"empty node name", ca.ReasonExtra, ca.ExtraNodeName, func(a *application) { a.request.Extra[ca.ExtraNodeName] = []string{""} }},
		{"no values of node name", ca.ReasonExtra, ca.ExtraNodeName, func(a *application) { a.request.Extra[ca.ExtraNodeName] = nil }},
		{"two node names", ca.ReasonExtra, ca.ExtraNodeName, func(a *application) {
			a.request.Extra[ca.ExtraNodeName] = append(a.request.Extra[ca.ExtraNodeName], "b")
		}},
		{"two pod UIDs", ca.ReasonExtra, ca.ExtraPodUID, func(a *application) {
			a.request.Extra[ca.ExtraPodUID] = append(a.request.Extra[ca.ExtraPodUID], "b")
		}},
		{"node name that is a path", ca.ReasonNode, "../b", func(a *application) { a.request.Extra[ca.ExtraNodeName] = []string{"../b"} }},
		{"no such node", ca.ReasonNode, `"a"`, func(a *application) { a.facts.Node = nil }},
		{"another live node", ca.ReasonNode, "b/", func(a *application) { a.facts.Node.ID = keytest.ID("b") }},
		{"node made anew", ca.ReasonNode, "second-life", func(a *application) { a.facts.Node.ID.UID = "second-life" }},
		{"no such pod", ca.ReasonPod, "agent-a", func(a *application) { a.facts.Pod = nil }},
		{"another pod", ca.ReasonPod, "agent-b", func(a *application) { a.facts.Pod.Name = "agent-b" }},
		{"pod made anew", ca.ReasonPod, "second-life", func(a *application) { a.facts.Pod.UID = "second-life" }},
		{"pod on another node", ca.ReasonPod, `"b"`, func(a *application) { a.facts.Pod.NodeName = "b" }},
		{"pod on no node", ca.ReasonPod, `""`, func(a *application) { a.facts.Pod.NodeName = "" }},
		{"pod of another account", ca.ReasonPod, "default", func(a *application) { a.facts.Pod.ServiceAccount = "default" }},
		{"pod that goes", ca.ReasonPod, "deleted", func(a *application) { a.facts.Pod.Deleting = true }},
		{"pod of another DaemonSet", ca.ReasonPod, "ds-2", func(a *application) { a.facts.Pod.ControllerUID = "ds-2" }},
		{"pod of a ReplicaSet", ca.ReasonPod, "ReplicaSet", func(a *application) { a.facts.Pod.ControllerKind = "ReplicaSet" }},
		{"pod of nobody", ca.ReasonPod, "DaemonSet", func(a *application) { a.facts.Pod.ControllerKind, a.facts.Pod.ControllerUID = "", "" }},
		{"DaemonSet not known", ca.ReasonPod, "DaemonSet", func(a *application) { a.policy.DaemonSetUID, a.facts.Pod.ControllerUID = "", "" }},
		{"RSA key", ca.ReasonKey, "RSA", func(a *application) { a.key = rsaKey(a.t) }},
		{"Ed25519 key", ca.ReasonKey, "Ed25519", func(a *application) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				a.t.Fatal(err)
			}
			a.key = key
		}},
		{"P-384 key", ca.ReasonKey, "P-256", func(a *application) {
			key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				a.t.Fatal(err)
			}
			a.key = key
		}},
		{"URI of another node", ca.ReasonName, "/node/b/", func(a *application) {
			a.template.URIs = uri(keytest.ID("b").URI(keytest.TrustDomain).String())
		}},
		{"URI of another trust domain", ca.ReasonName, "other", func(a *application) { a.template.URIs = uri(keytest.ID("a").URI("other").String()) }},
		{"URI with a query", ca.ReasonName, "?x", func(a *application) { a.template.URIs = uri(a.template.URIs[0].String() + "?x") }},
		{"no name", ca.ReasonName, "spiffe://", func(a *application) { a.template.URIs = nil }},
		{"two URIs", ca.ReasonName, "spiffe://", func(a *application) { a.template.URIs = append(a.template.URIs, a.template.URIs[0]) }},
		{"DNS name too", ca.ReasonName, "DNS", func(a *application) { a.template.DNSNames = []string{"kubernetes"} }},
		{"IP address too", ca.ReasonName, "IP", func(a *application) { a.template.IPAddresses = []net.IP{net.IPv4(10, 96, 0, 1)} }},
		{"email address too", ca.ReasonName, "email", func(a *application) { a.template.EmailAddresses = []string{"root@example.org"} }},
		{"a name of a rare kind too", ca.ReasonName, "subjectAltName", func(a *application) {
			san, err := asn1.Marshal([]asn1.RawValue{
				{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(a.template.URIs[0].String())},
				{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, 0x03}}, // registeredID
			})
			if err != nil {
				a.t.Fatal(err)
			}
			a.template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}
		}},
		{"subject of a kubelet", ca.ReasonSubject, "system:nodes", func(a *application) {
			a.template.Subject = pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes"}}
		}},
		{"subject with a common name", ca.ReasonSubject, "CN=x", func(a *application) { a.template.Subject = pkix.Name{CommonName: "x"} }},
		{"no usages", ca.ReasonUsages, "spec.usages", func(a *application) { a.request.Usages = nil }},
		{"a usage missing", ca.ReasonUsages, "server auth", func(a *application) { a.request.Usages = a.request.Usages[:2] }},
		{"a usage too many", ca.ReasonUsages, "cert sign", func(a *application) { a.request.Usages = append(a.request.Usages, "cert sign") }},
		{"a usage twice", ca.ReasonUsages, "client auth, client auth", func(a *application) { a.request.Usages = append(a.request.Usages, "client auth") }},
		{"too short", ca.ReasonExpiration, "9m59s", func(a *application) { a.request.Expiration = ca.MinLifetime - time.Second }},
		{"negative", ca.ReasonExpiration, "-1s", func(a *application) { a.request.Expiration = -time.Second }},
		{"too long", ca.ReasonExpiration, "168h0m1s", func(a *application) { a.request.Expiration = ca.DefaultLeafLifetime + time.Second }},
		{"too often", ca.ReasonRateLimit, "10 certificates", func(a *application) {
			for i := range time.Duration(ca.DefaultMaxPerHour) {
				a.facts.Issued = append(a.facts.Issued, a.facts.Now.Add(-i*time.Minute))
			}
		}},
		{"key of another node", ca.ReasonKeyOfOtherNode, "b/", func(a *application) {
			a.facts.KeyOwners = map[[32]byte]keymgr.NodeID{a.hash(): keytest.ID("b")}
		}},
		{"key of the node's former life", ca.ReasonKeyOfOtherNode, "former", func(a *application) {
			a.facts.KeyOwners = map[[32]byte]keymgr.NodeID{a.hash(): {Name: "a", UID: "former"}}
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a := newApplication(t)
			tc.edit(a)
			a.sign()
			order, err := ca.Approve(a.request, a.policy, a.facts)
			wantDenial(t, err, tc.want, tc.says)
			if order.PublicKey() != nil {
				t.Error("a denied request gave a valid order")
			}
		})
	}
}

func wantDenial(t *testing.T, err error, want ca.Reason, says string) {
	t.Helper()
	d, ok := errors.AsType[*ca.Denial](err)
	if !ok || !errors.Is(err, ca.ErrDenied) {
		t.Fatalf("error is %v, want a denial", err)
	}
	if d.Reason != want {
		t.Errorf("denied for %s (%s), want %s", d.Reason, d.Message, want)
	}
	if !strings.Contains(d.Message, says) {
		t.Errorf("message %q does not say %q", d.Message, says)
	}
}

func rsaKey(t *testing.T) *rsa.PrivateKey {
	t.Helper()
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// The bytes of the request are not what a client of ours makes.
func TestApproveDeniesBytes(t *testing.T) {
	a := newApplication(t)
	a.sign()
	good := a.request.CSR
	block, _ := pem.Decode(good)
	tampered := slices.Clone(block.Bytes)
	tampered[len(tampered)-1] ^= 1
	encode := func(kind string, der []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}) }
	for name, csr := range map[string][]byte{
		"empty":           nil,
		"DER":             block.Bytes,
		"other block":     encode("CERTIFICATE", block.Bytes),
		"two blocks":      slices.Concat(good, good),
		"trailing text":   append(slices.Clone(good), "x"...),
		"trailing DER":    encode("CERTIFICATE REQUEST", append(slices.Clone(block.Bytes), 0)),
		"rubbish":         encode("CERTIFICATE REQUEST", []byte("x")),
		"wrong signature": encode("CERTIFICATE REQUEST", tampered),
		"too large":       encode("CERTIFICATE REQUEST", make([]byte, 20<<10)),
	} {
		a.request.CSR = csr
		_, err := ca.Approve(a.request, a.policy, a.facts)
		d, ok := errors.AsType[*ca.Denial](err)
		if !ok || d.Reason != ca.ReasonRequest {
			t.Errorf("%s: error %v, want a denial for %s", name, err, ca.ReasonRequest)
		}
	}
}

// The checks come in the order of the design: what is said first is what is wrong first.
func TestApproveOrderOfChecks(t *testing.T) {
	a := newApplication(t)
	a.template.Subject = pkix.Name{CommonName: "x"}
	a.sign()
	a.facts.KeyOwners = map[[32]byte]keymgr.NodeID{a.hash(): keytest.ID("b")}
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now}, 99)
	good := newApplication(t)
	node, pod := a.facts.Node, a.facts.Pod
	extra := a.request.Extra
	a.facts.Node, a.facts.Pod, a.request.Extra = nil, nil, nil
	a.request.SignerName, a.request.Username, a.request.Usages, a.request.Expiration = "x", "x", nil, 1
	for _, step := range []struct {
		want ca.Reason
		heal func()
	}{
		{ca.ReasonSignerName, func() { a.request.SignerName = ca.SignerName }},
		{ca.ReasonUsername, func() { a.request.Username = good.request.Username }},
		{ca.ReasonExtra, func() { a.request.Extra = extra }},
		{ca.ReasonNode, func() { a.facts.Node = node }},
		{ca.ReasonPod, func() { a.facts.Pod = pod }},
		{ca.ReasonSubject, func() { a.template.Subject = pkix.Name{}; a.sign() }},
		{ca.ReasonUsages, func() { a.request.Usages = good.request.Usages }},
		{ca.ReasonExpiration, func() { a.request.Expiration = 0 }},
		{ca.ReasonRateLimit, func() { a.facts.Issued = nil }},
		{ca.ReasonKeyOfOtherNode, func() { a.facts.KeyOwners = nil }},
	} {
		_, err := ca.Approve(a.request, a.policy, a.facts)
		wantDenial(t, err, step.want, "")
		step.heal()
	}
	if _, err := ca.Approve(a.request, a.policy, a.facts); err != nil {
		t.Errorf("with all mended: %v", err)
	}
}

// TestApproveAfterReadmission: certificates that were revoked with the node are no
// sign of an agent that asks too often; those since then are.
func TestApproveAfterReadmission(t *testing.T) {
	a := newApplication(t)
	a.sign()
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now.Add(-time.Minute)}, 2*ca.DefaultMaxPerHour)
	id := keytest.ID("a")
	a.facts.Revoked.Nodes = []keymgr.RevokedNode{{Name: id.Name, UID: id.UID, At: a.facts.Now.Add(-time.Minute)}}
	if _, err := ca.Approve(a.request, a.policy, a.facts); err != nil {
		t.Errorf("revoked certificates count: %v", err)
	}
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now.Add(-time.Second)}, ca.DefaultMaxPerHour)
	_, err := ca.Approve(a.request, a.policy, a.facts)
	wantDenial(t, err, ca.ReasonRateLimit, "10 certificates")
}

func TestApproveBounds(t *testing.T) {
	a := newApplication(t)
	a.sign()
	a.facts.KeyOwners = map[[32]byte]keymgr.NodeID{a.hash(): keytest.ID("a")} // its own, as at every renewal
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now}, ca.DefaultMaxPerHour-1)
	a.facts.Issued = append(a.facts.Issued, a.facts.Now.Add(-time.Hour), a.facts.Now.Add(-2*time.Hour))
	slices.Reverse(a.request.Usages)
	for _, lifetime := range []time.Duration{ca.MinLifetime, time.Hour, ca.DefaultLeafLifetime} {
		a.request.Expiration = lifetime
		order, err := ca.Approve(a.request, a.policy, a.facts)
		if err != nil || order.Lifetime() != lifetime {
			t.Errorf("lifetime %s: got %s and error %v", lifetime, order.Lifetime(), err)
		}
	}
	a.policy.MaxLifetime, a.request.Expiration = time.Hour, 0
	if order, err := ca.Approve(a.request, a.policy, a.facts); err != nil || order.Lifetime() != time.Hour {
		t.Errorf("lifetime left to the signer: got %s and error %v, want the policy's hour", order.Lifetime(), err)
	}
	a.policy.MaxPerHour = 3
	_, err := ca.Approve(a.request, a.policy, a.facts)
	wantDenial(t, err, ca.ReasonRateLimit, "at most 3")
	a.policy.MaxPerHour, a.policy.MaxLifetime = 0, ca.MinLifetime // renewed every few minutes
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now}, 24)
	if _, err := ca.Approve(a.request, a.policy, a.facts); err != nil {
		t.Errorf("24 certificates of ten minutes in an hour: %v", err)
	}
	a.policy.MaxPerHour, a.policy.SignerName = 0, "example.org/other"
	_, err = ca.Approve(a.request, a.policy, a.facts)
	wantDenial(t, err, ca.ReasonSignerName, "example.org/other")
}

func TestReadClaims(t *testing.T) {
	a := newApplication(t)
	got, err := ca.ReadClaims(a.request)
	want := ca.Claims{Node: keytest.ID("a"), PodName: "agent-a", PodUID: "pod-" + keytest.ID("a").UID}
	if err != nil || got != want {
		t.Errorf("claims are %+v, %v; want %+v", got, err, want)
	}
}

// seedCSR is a request made by openssl req for spiffe://td/node/a/u, in hexadecimal.
const seedCSR = "3081ed30819402010030003059301306072a8648ce3d020106082a8648ce3d03010703420004cac329b3b5c92a472ed6ea89369d3ac1408620ad" +
	"2ea575e6dfdc144b47709930bc691f6af24e582ff869a75e5d4f11268a07b6191e3637e4ab46c7668eb2f56ea032303006092a864886f70d01090e31233021301f" +
	"0603551d110418301686147370696666653a2f2f74642f6e6f64652f612f75300a06082a8648ce3d04030203480030450220680829b1b87955669824a84353a607" +
	"158d454c0a85e8bf054962e855a36eecc8022100b7a375766e9a221fc7d29f7460059509aa7e7024cca785785bcbd53ef71d6bfe"

func opensslCSR(tb testing.TB) []byte {
	tb.Helper()
	der, err := hex.DecodeString(seedCSR)
	if err != nil {
		tb.Fatal(err)
	}
	return der
}

// approveDER asks for node a/u of trust domain td.
func approveDER(der []byte) (ca.Order, error) {
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	node := keymgr.LiveNode{ID: keymgr.NodeID{Name: "a", UID: "u"}}
	request, policy, facts := keytest.Scene(csr, node, time.Unix(0, 0))
	policy.TrustDomain = "td"
	return ca.Approve(request, policy, facts)
}

func TestApproveCSROfOpenSSL(t *testing.T) {
	if _, err := approveDER(opensslCSR(t)); err != nil {
		t.Error(err)
	}
}

// Whatever bytes come in, the answer is a denial or an order for exactly this node.
func FuzzApproveCSR(f *testing.F) {
	f.Add([]byte("x"))
	f.Add([]byte("\x30\x00"))
	f.Add(opensslCSR(f))
	f.Fuzz(func(t *testing.T, der []byte) {
		order, err := approveDER(der)
		if err == nil && (order.Node().Name != "a" || order.PublicKey() == nil) {
			t.Fatalf("order is %+v", order)
		}
		if err != nil && !errors.Is(err, ca.ErrDenied) {
			t.Fatalf("error %v is no denial", err)
		}
	})
}
