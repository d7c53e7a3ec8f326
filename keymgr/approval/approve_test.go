// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package approval_test

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
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/keytest"
)

// application is a request that is approved, until a test changes one thing.
type application struct {
	t *testing.T
	// key and template make request.CSR.
	key      crypto.Signer
	template *x509.CertificateRequest

	request approval.Request
	policy  approval.Policy
	facts   approval.Facts
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
	order, err := approval.Approve(a.request, a.policy, a.facts)
	if err != nil {
		t.Fatal(err)
	}
	if order.Node() != keytest.ID("a") || order.TrustDomain() != keytest.TrustDomain ||
		order.Lifetime() != approval.DefaultLeafLifetime || !order.PublicKey().Equal(a.key.Public()) ||
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
	if _, err := approval.Approve(request, policy, facts); err != nil {
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
		want approval.Reason
		says string
		edit edit
	}{
		{"other signer", approval.ReasonSignerName, "kubernetes.io/kube-apiserver-client", func(a *application) { a.request.SignerName = "kubernetes.io/kube-apiserver-client" }},
		{"other service account", approval.ReasonUsername, "sealane-wireguard", func(a *application) {
			a.request.Username = "system:serviceaccount:sealane-system:sealane-wireguard"
		}},
		{"other namespace", approval.ReasonUsername, "default", func(a *application) {
			a.request.Username = "system:serviceaccount:default:sealane-agent"
		}},
		{"a user", approval.ReasonUsername, "admin", func(a *application) { a.request.Username = "admin" }},
		{"no user", approval.ReasonUsername, "spec.username", func(a *application) { a.request.Username = "" }},
		{"no extra", approval.ReasonExtra, approval.ExtraNodeName, func(a *application) { a.request.Extra = nil }},
		{"no node name", approval.ReasonExtra, approval.ExtraNodeName, func(a *application) { delete(a.request.Extra, approval.ExtraNodeName) }},
		{"no node UID", approval.ReasonExtra, approval.ExtraNodeUID, func(a *application) { delete(a.request.Extra, approval.ExtraNodeUID) }},
		{"no pod name", approval.ReasonExtra, approval.ExtraPodName, func(a *application) { delete(a.request.Extra, approval.ExtraPodName) }},
		{"no pod UID", approval.ReasonExtra, approval.ExtraPodUID, func(a *application) { delete(a.request.Extra, approval.ExtraPodUID) }},
		{"empty node name", approval.ReasonExtra, approval.ExtraNodeName, func(a *application) { a.request.Extra[approval.ExtraNodeName] = []string{""} }},
		{"no values of node name", approval.ReasonExtra, approval.ExtraNodeName, func(a *application) { a.request.Extra[approval.ExtraNodeName] = nil }},
		{"two node names", approval.ReasonExtra, approval.ExtraNodeName, func(a *application) {
			a.request.Extra[approval.ExtraNodeName] = append(a.request.Extra[approval.ExtraNodeName], "b")
		}},
		{"two pod UIDs", approval.ReasonExtra, approval.ExtraPodUID, func(a *application) {
			a.request.Extra[approval.ExtraPodUID] = append(a.request.Extra[approval.ExtraPodUID], "b")
		}},
		{"node name that is a path", approval.ReasonNode, "../b", func(a *application) { a.request.Extra[approval.ExtraNodeName] = []string{"../b"} }},
		{"no such node", approval.ReasonNode, `"a"`, func(a *application) { a.facts.Node = nil }},
		{"another live node", approval.ReasonNode, "b/", func(a *application) { a.facts.Node.ID = keytest.ID("b") }},
		{"node made anew", approval.ReasonNode, "second-life", func(a *application) { a.facts.Node.ID.UID = "second-life" }},
		{"no such pod", approval.ReasonPod, "agent-a", func(a *application) { a.facts.Pod = nil }},
		{"another pod", approval.ReasonPod, "agent-b", func(a *application) { a.facts.Pod.Name = "agent-b" }},
		{"pod made anew", approval.ReasonPod, "second-life", func(a *application) { a.facts.Pod.UID = "second-life" }},
		{"pod on another node", approval.ReasonPod, `"b"`, func(a *application) { a.facts.Pod.NodeName = "b" }},
		{"pod on no node", approval.ReasonPod, `""`, func(a *application) { a.facts.Pod.NodeName = "" }},
		{"pod of another account", approval.ReasonPod, "default", func(a *application) { a.facts.Pod.ServiceAccount = "default" }},
		{"pod that goes", approval.ReasonPod, "deleted", func(a *application) { a.facts.Pod.Deleting = true }},
		{"pod of another DaemonSet", approval.ReasonPod, "ds-2", func(a *application) { a.facts.Pod.ControllerUID = "ds-2" }},
		{"pod of a ReplicaSet", approval.ReasonPod, "ReplicaSet", func(a *application) { a.facts.Pod.ControllerKind = "ReplicaSet" }},
		{"pod of nobody", approval.ReasonPod, "DaemonSet", func(a *application) { a.facts.Pod.ControllerKind, a.facts.Pod.ControllerUID = "", "" }},
		{"DaemonSet not known", approval.ReasonPod, "DaemonSet", func(a *application) { a.policy.DaemonSetUID, a.facts.Pod.ControllerUID = "", "" }},
		{"RSA key", approval.ReasonKey, "RSA", func(a *application) { a.key = rsaKey(a.t) }},
		{"Ed25519 key", approval.ReasonKey, "Ed25519", func(a *application) {
			_, key, err := ed25519.GenerateKey(rand.Reader)
			if err != nil {
				a.t.Fatal(err)
			}
			a.key = key
		}},
		{"P-384 key", approval.ReasonKey, "P-256", func(a *application) {
			key, err := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			if err != nil {
				a.t.Fatal(err)
			}
			a.key = key
		}},
		{"URI of another node", approval.ReasonName, "/node/b/", func(a *application) {
			a.template.URIs = uri(keytest.ID("b").URI(keytest.TrustDomain).String())
		}},
		{"URI of another trust domain", approval.ReasonName, "other", func(a *application) { a.template.URIs = uri(keytest.ID("a").URI("other").String()) }},
		{"URI with a query", approval.ReasonName, "?x", func(a *application) { a.template.URIs = uri(a.template.URIs[0].String() + "?x") }},
		{"no name", approval.ReasonName, "spiffe://", func(a *application) { a.template.URIs = nil }},
		{"two URIs", approval.ReasonName, "spiffe://", func(a *application) { a.template.URIs = append(a.template.URIs, a.template.URIs[0]) }},
		{"DNS name too", approval.ReasonName, "DNS", func(a *application) { a.template.DNSNames = []string{"kubernetes"} }},
		{"IP address too", approval.ReasonName, "IP", func(a *application) { a.template.IPAddresses = []net.IP{net.IPv4(10, 96, 0, 1)} }},
		{"email address too", approval.ReasonName, "email", func(a *application) { a.template.EmailAddresses = []string{"root@example.org"} }},
		{"a name of a rare kind too", approval.ReasonName, "subjectAltName", func(a *application) {
			san, err := asn1.Marshal([]asn1.RawValue{
				{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(a.template.URIs[0].String())},
				{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{0x2a, 0x03}}, // registeredID
			})
			if err != nil {
				a.t.Fatal(err)
			}
			a.template.ExtraExtensions = []pkix.Extension{{Id: asn1.ObjectIdentifier{2, 5, 29, 17}, Value: san}}
		}},
		{"subject of a kubelet", approval.ReasonSubject, "system:nodes", func(a *application) {
			a.template.Subject = pkix.Name{CommonName: "system:node:a", Organization: []string{"system:nodes"}}
		}},
		{"subject with a common name", approval.ReasonSubject, "CN=x", func(a *application) { a.template.Subject = pkix.Name{CommonName: "x"} }},
		{"pods outside of the cluster", approval.ReasonPodRanges, "198.51.96.0/19", func(a *application) {
			a.policy.Rules.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}
			a.facts.Node.PodCIDRs = []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("198.51.96.0/19")}
		}},
		{"pods over Services", approval.ReasonPodRanges, "10.240.0.0/12", func(a *application) {
			a.policy.Rules.ServiceCIDRs = []netip.Prefix{netip.MustParsePrefix("10.240.0.0/12")}
		}},
		{"pods over the API server", approval.ReasonPodRanges, "10.244.1.9", func(a *application) {
			a.policy.Rules.APIServer = []netip.Addr{netip.MustParseAddr("10.244.1.9")}
		}},
		{"pods over another node", approval.ReasonPodRanges, "address 10.244.1.9 of node b", func(a *application) {
			claim := approval.Claim{Node: keymgr.LiveNode{ID: keytest.ID("b")}, Certified: true}
			a.facts.Claims = map[netip.Addr][]approval.Claim{netip.MustParseAddr("10.244.1.9"): {claim}}
		}},
		{"no usages", approval.ReasonUsages, "spec.usages", func(a *application) { a.request.Usages = nil }},
		{"a usage missing", approval.ReasonUsages, "server auth", func(a *application) { a.request.Usages = a.request.Usages[:2] }},
		{"a usage too many", approval.ReasonUsages, "cert sign", func(a *application) { a.request.Usages = append(a.request.Usages, "cert sign") }},
		{"a usage twice", approval.ReasonUsages, "client auth, client auth", func(a *application) { a.request.Usages = append(a.request.Usages, "client auth") }},
		{"too short", approval.ReasonExpiration, "9m59s", func(a *application) { a.request.Expiration = approval.MinLifetime - time.Second }},
		{"negative", approval.ReasonExpiration, "-1s", func(a *application) { a.request.Expiration = -time.Second }},
		{"too long", approval.ReasonExpiration, "168h0m1s", func(a *application) { a.request.Expiration = approval.DefaultLeafLifetime + time.Second }},
		{"too often", approval.ReasonRateLimit, "10 certificates", func(a *application) {
			for i := range time.Duration(approval.DefaultMaxPerHour) {
				a.facts.Issued = append(a.facts.Issued, a.facts.Now.Add(-i*time.Minute))
			}
		}},
		{"key of another node", approval.ReasonKeyOfOtherNode, "b/", func(a *application) {
			a.facts.KeyOwners = map[[32]byte]keymgr.NodeID{a.hash(): keytest.ID("b")}
		}},
		{"key of the node's former life", approval.ReasonKeyOfOtherNode, "former", func(a *application) {
			a.facts.KeyOwners = map[[32]byte]keymgr.NodeID{a.hash(): {Name: "a", UID: "former"}}
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			a := newApplication(t)
			tc.edit(a)
			a.sign()
			order, err := approval.Approve(a.request, a.policy, a.facts)
			wantDenial(t, err, tc.want, tc.says)
			if order.PublicKey() != nil {
				t.Error("a denied request gave a valid order")
			}
		})
	}
}

func wantDenial(t *testing.T, err error, want approval.Reason, says string) {
	t.Helper()
	d, ok := errors.AsType[*approval.Denial](err)
	if !ok || !errors.Is(err, approval.ErrDenied) {
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
		_, err := approval.Approve(a.request, a.policy, a.facts)
		d, ok := errors.AsType[*approval.Denial](err)
		if !ok || d.Reason != approval.ReasonRequest {
			t.Errorf("%s: error %v, want a denial for %s", name, err, approval.ReasonRequest)
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
		want approval.Reason
		heal func()
	}{
		{approval.ReasonSignerName, func() { a.request.SignerName = approval.SignerName }},
		{approval.ReasonUsername, func() { a.request.Username = good.request.Username }},
		{approval.ReasonExtra, func() { a.request.Extra = extra }},
		{approval.ReasonNode, func() { a.facts.Node = node }},
		{approval.ReasonPod, func() { a.facts.Pod = pod }},
		{approval.ReasonSubject, func() { a.template.Subject = pkix.Name{}; a.sign() }},
		{approval.ReasonUsages, func() { a.request.Usages = good.request.Usages }},
		{approval.ReasonExpiration, func() { a.request.Expiration = 0 }},
		{approval.ReasonRateLimit, func() { a.facts.Issued = nil }},
		{approval.ReasonKeyOfOtherNode, func() { a.facts.KeyOwners = nil }},
	} {
		_, err := approval.Approve(a.request, a.policy, a.facts)
		wantDenial(t, err, step.want, "")
		step.heal()
	}
	if _, err := approval.Approve(a.request, a.policy, a.facts); err != nil {
		t.Errorf("with all mended: %v", err)
	}
}

// TestApproveAfterReadmission: certificates that were revoked with the node are no
// sign of an agent that asks too often; those since then are.
func TestApproveAfterReadmission(t *testing.T) {
	a := newApplication(t)
	a.sign()
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now.Add(-time.Minute)}, 2*approval.DefaultMaxPerHour)
	id := keytest.ID("a")
	a.facts.Revoked.Nodes = []keymgr.RevokedNode{{Name: id.Name, UID: id.UID, At: a.facts.Now.Add(-time.Minute)}}
	if _, err := approval.Approve(a.request, a.policy, a.facts); err != nil {
		t.Errorf("revoked certificates count: %v", err)
	}
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now.Add(-time.Second)}, approval.DefaultMaxPerHour)
	_, err := approval.Approve(a.request, a.policy, a.facts)
	wantDenial(t, err, approval.ReasonRateLimit, "10 certificates")
}

func TestApproveBounds(t *testing.T) {
	a := newApplication(t)
	a.sign()
	a.facts.KeyOwners = map[[32]byte]keymgr.NodeID{a.hash(): keytest.ID("a")} // its own, as at every renewal
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now}, approval.DefaultMaxPerHour-1)
	a.facts.Issued = append(a.facts.Issued, a.facts.Now.Add(-time.Hour), a.facts.Now.Add(-2*time.Hour))
	slices.Reverse(a.request.Usages)
	for _, lifetime := range []time.Duration{approval.MinLifetime, time.Hour, approval.DefaultLeafLifetime} {
		a.request.Expiration = lifetime
		order, err := approval.Approve(a.request, a.policy, a.facts)
		if err != nil || order.Lifetime() != lifetime {
			t.Errorf("lifetime %s: got %s and error %v", lifetime, order.Lifetime(), err)
		}
	}
	a.policy.MaxLifetime, a.request.Expiration = time.Hour, 0
	if order, err := approval.Approve(a.request, a.policy, a.facts); err != nil || order.Lifetime() != time.Hour {
		t.Errorf("lifetime left to the signer: got %s and error %v, want the policy's hour", order.Lifetime(), err)
	}
	a.policy.MaxPerHour = 3
	_, err := approval.Approve(a.request, a.policy, a.facts)
	wantDenial(t, err, approval.ReasonRateLimit, "at most 3")
	a.policy.MaxPerHour, a.policy.MaxLifetime = 0, approval.MinLifetime // renewed every few minutes
	a.facts.Issued = slices.Repeat([]time.Time{a.facts.Now}, 24)
	if _, err := approval.Approve(a.request, a.policy, a.facts); err != nil {
		t.Errorf("24 certificates of ten minutes in an hour: %v", err)
	}
	a.policy.MaxPerHour, a.policy.SignerName = 0, "example.org/other"
	_, err = approval.Approve(a.request, a.policy, a.facts)
	wantDenial(t, err, approval.ReasonSignerName, "example.org/other")
}

func TestReadClaims(t *testing.T) {
	a := newApplication(t)
	got, err := approval.ReadClaims(a.request)
	want := approval.Claims{Node: keytest.ID("a"), PodName: "agent-a", PodUID: "pod-" + keytest.ID("a").UID}
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
func approveDER(der []byte) (approval.Order, error) {
	csr := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
	node := keymgr.LiveNode{ID: keymgr.NodeID{Name: "a", UID: "u"}}
	request, policy, facts := keytest.Scene(csr, node, time.Unix(0, 0))
	policy.TrustDomain = "td"
	return approval.Approve(request, policy, facts)
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
		if err != nil && !errors.Is(err, approval.ErrDenied) {
			t.Fatalf("error %v is no denial", err)
		}
	})
}

func BenchmarkApprove(b *testing.B) {
	der := opensslCSR(b)
	for b.Loop() {
		if _, err := approveDER(der); err != nil {
			b.Fatal(err)
		}
	}
}
