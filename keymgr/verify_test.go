// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"bytes"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
)

// scene is a verifier on node "self" that knows node b, and node a about to publish.
type scene struct {
	*keytest.Cluster
	a, b     *keytest.Node
	verifier *keymgr.Verifier
}

func newScene(t *testing.T) *scene {
	t.Helper()
	c := keytest.NewCluster(t)
	s := &scene{
		Cluster: c,
		a:       c.Node("a", "10.244.1.0/24", "fd00:1::/64"),
		b:       c.Node("b", "10.244.2.0/24"),
	}
	s.verifier = c.Verifier("self")
	mustVerify(t, s.verifier, s.b.Sign(), s.b.Live)
	return s
}

func mustVerify(t *testing.T, v *keymgr.Verifier, s keymgr.Signed, live keymgr.LiveNode) keymgr.Peer {
	t.Helper()
	p, err := v.Verify(s, live)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return p
}

// wantReason fails unless err is exactly the one reason want.
func wantReason(t *testing.T, err, want error) {
	t.Helper()
	if !errors.Is(err, want) {
		t.Fatalf("got error %v (reason %q), want reason %q", err, keymgr.RejectReason(err), keymgr.RejectReason(want))
	}
	if got, want := keymgr.RejectReason(err), keymgr.RejectReason(want); got != want {
		t.Fatalf("RejectReason = %q, want %q", got, want)
	}
}

func TestVerifyAcceptsGoodStatement(t *testing.T) {
	s := newScene(t)
	s.verifier.SetSelf([]keymgr.PublicKey{{1}}, keymgr.LiveNode{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.9.0/24")}})
	p := mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)

	cert, _ := s.a.Identity.Certificate()
	now := s.Clock.Now()
	want := keymgr.Peer{
		ID: s.a.Live.ID, Seq: uint64(now.UnixMilli()), Keys: p.Keys,
		PodCIDRs: s.a.Live.PodCIDRs, Endpoints: s.a.Live.Addresses, PSK: keymgr.PSKOff,
		NotAfter: now.Add(keymgr.StatementLifetime), Certificate: cert,
		Until: now.Add(keymgr.StatementLifetime + keymgr.ClockSkew + keymgr.DefaultGrace),
	}
	if diff := cmp.Diff(want, p, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("peer (-want +got):\n%s", diff)
	}
	if len(p.Keys) != 1 || !p.Keys[0].Valid() || p.Keys[0].Key() != s.a.Input.Keys[0].Public || p.Keys[0].Generation() != 1 {
		t.Errorf("keys are %v, want the valid generation 1 of node a", p.Keys)
	}
	if got, want := p.Keys[0].Ports(), [2]uint16{51873, 51874}; got != want {
		t.Errorf("ports are %v, want %v", got, want)
	}
}

func TestPeerKeyZeroIsInvalid(t *testing.T) {
	var k keymgr.PeerKey
	if k.Valid() || !k.Key().IsZero() || k.String() != "(invalid key)" {
		t.Errorf("zero PeerKey passes as %v", k)
	}
}

// Each case changes one thing in a statement that would be accepted.
func TestVerifyRefusesStatement(t *testing.T) {
	prefixes := func(list ...string) (p []netip.Prefix) {
		for _, s := range list {
			p = append(p, netip.MustParsePrefix(s))
		}
		return p
	}
	second := func(s *scene, t *testing.T, gen uint64) keymgr.StatementKey {
		k := keytest.WGKey(t, "a", gen, s.Clock.Now())
		return keymgr.StatementKey{
			Generation: gen, Key: k.Public, NotBefore: k.Created, NotAfter: k.Created.Add(time.Hour), Ports: keymgr.Ports{9, 10},
		}
	}
	type edit = func(*testing.T, *scene, *keymgr.Statement)
	cases := []struct {
		name string
		want error
		edit edit
	}{
		{"other type", keymgr.ErrType, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Type = "nodekey/v2" }},
		{"no type", keymgr.ErrType, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Type = "" }},
		{"other trust domain", keymgr.ErrTrustDomain, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.TrustDomain = "other.example" }},
		{"other name", keymgr.ErrIdentity, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.NodeName = "b" }},
		{"other UID", keymgr.ErrIdentity, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.NodeUID = "other" }},
		{"no sequence", keymgr.ErrFormat, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Seq = 0 }},
		{"from the future", keymgr.ErrNotYetValid, func(_ *testing.T, _ *scene, s *keymgr.Statement) {
			s.IssuedAt = s.IssuedAt.Add(keymgr.ClockSkew + time.Second)
		}},
		{"ends before it begins", keymgr.ErrLifetime, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.NotAfter = s.IssuedAt }},
		{"outlives certificate and grace", keymgr.ErrLifetime, func(_ *testing.T, _ *scene, s *keymgr.Statement) {
			s.NotAfter = s.NotAfter.Add(keymgr.DefaultGrace + 5*24*time.Hour)
		}},
		{"expired", keymgr.ErrExpired, func(_ *testing.T, _ *scene, s *keymgr.Statement) {
			s.IssuedAt, s.NotAfter = s.IssuedAt.Add(-time.Hour), s.IssuedAt.Add(-keymgr.ClockSkew-time.Second)
		}},
		{"no key", keymgr.ErrFormat, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Keys = nil }},
		{"three keys", keymgr.ErrFormat, func(t *testing.T, sc *scene, s *keymgr.Statement) {
			s.Keys = append(s.Keys, second(sc, t, 2), second(sc, t, 3))
		}},
		{"generation zero", keymgr.ErrGeneration, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Keys[0].Generation = 0 }},
		{"gap between generations", keymgr.ErrGeneration, func(t *testing.T, sc *scene, s *keymgr.Statement) { s.Keys = append(s.Keys, second(sc, t, 3)) }},
		{"generations in reverse", keymgr.ErrGeneration, func(t *testing.T, sc *scene, s *keymgr.Statement) {
			s.Keys[0].Generation = 2
			s.Keys = append(s.Keys, second(sc, t, 1))
		}},
		{"generation overflows", keymgr.ErrGeneration, func(t *testing.T, sc *scene, s *keymgr.Statement) {
			s.Keys[0].Generation = 1<<64 - 1
			s.Keys = append(s.Keys, second(sc, t, 0))
		}},
		{"listed and revoked", keymgr.ErrGeneration, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.RevokedGens = []uint64{1} }},
		{"too many revoked", keymgr.ErrFormat, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.RevokedGens = make([]uint64, 33) }},
		{"zero key", keymgr.ErrKey, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Keys[0].Key = keymgr.PublicKey{} }},
		{"low order key", keymgr.ErrKey, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Keys[0].Key = keymgr.PublicKey{1} }},
		{"key with bit 255", keymgr.ErrKey, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Keys[0].Key[31] |= 0x80 }},
		{"own key", keymgr.ErrOwnKey, func(_ *testing.T, sc *scene, s *keymgr.Statement) {
			sc.verifier.SetSelf([]keymgr.PublicKey{s.Keys[0].Key}, keymgr.LiveNode{})
		}},
		{"stolen key", keymgr.ErrDuplicateKey, func(_ *testing.T, sc *scene, s *keymgr.Statement) { s.Keys[0].Key = sc.b.Input.Keys[0].Public }},
		{"one key twice", keymgr.ErrDuplicateKey, func(t *testing.T, sc *scene, s *keymgr.Statement) {
			k := second(sc, t, 2)
			k.Key = s.Keys[0].Key
			s.Keys = append(s.Keys, k)
		}},
		{"key ends before it begins", keymgr.ErrLifetime, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Keys[0].NotAfter = s.Keys[0].NotBefore }},
		{"key expired", keymgr.ErrExpired, func(_ *testing.T, _ *scene, s *keymgr.Statement) {
			s.Keys[0].NotBefore = s.IssuedAt.Add(-time.Hour)
			s.Keys[0].NotAfter = s.IssuedAt.Add(-keymgr.ClockSkew - time.Second)
		}},
		{"key not yet valid", keymgr.ErrNotYetValid, func(_ *testing.T, _ *scene, s *keymgr.Statement) {
			s.Keys[0].NotBefore = s.IssuedAt.Add(keymgr.ClockSkew + time.Second)
		}},
		{"port zero", keymgr.ErrPorts, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Keys[0].Ports[1] = 0 }},
		{"one port twice", keymgr.ErrPorts, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Keys[0].Ports[1] = s.Keys[0].Ports[0] }},
		{"one port for two generations", keymgr.ErrPorts, func(t *testing.T, sc *scene, s *keymgr.Statement) {
			k := second(sc, t, 2)
			k.Ports[0] = s.Keys[0].Ports[1]
			s.Keys = append(s.Keys, k)
		}},
		{"no endpoint", keymgr.ErrEndpoint, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Endpoints = nil }},
		{"foreign endpoint", keymgr.ErrEndpoint, func(_ *testing.T, sc *scene, s *keymgr.Statement) { s.Endpoints = sc.b.Live.Addresses }},
		{"endpoint with a zone", keymgr.ErrEndpoint, func(_ *testing.T, _ *scene, s *keymgr.Statement) {
			s.Endpoints = []netip.Addr{netip.MustParseAddr("fe80::1%eth0")}
		}},
		{"too many endpoints", keymgr.ErrFormat, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.Endpoints = make([]netip.Addr, 9) }},
		{"pod CIDR of nobody", keymgr.ErrPodCIDR, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.PodCIDRs = prefixes("10.244.77.0/24") }},
		{"pod CIDR of another node", keymgr.ErrPodCIDR, func(_ *testing.T, sc *scene, s *keymgr.Statement) { s.PodCIDRs = sc.b.Live.PodCIDRs }},
		{"pod CIDR wider than its own", keymgr.ErrPodCIDR, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.PodCIDRs = prefixes("10.244.0.0/16") }},
		{"pod CIDR wider with the same beginning", keymgr.ErrPodCIDR, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.PodCIDRs = prefixes("fd00:1::/63") }},
		{"default route", keymgr.ErrPodCIDR, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.PodCIDRs = prefixes("0.0.0.0/0") }},
		{"pod CIDR not masked", keymgr.ErrPodCIDR, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.PodCIDRs = prefixes("10.244.1.9/24") }},
		{"pod CIDR twice", keymgr.ErrPodCIDR, func(_ *testing.T, _ *scene, s *keymgr.Statement) {
			s.PodCIDRs = prefixes("10.244.1.0/24", "10.244.1.0/25")
		}},
		{"own pod CIDR", keymgr.ErrPodCIDROverlap, func(_ *testing.T, sc *scene, _ *keymgr.Statement) {
			sc.verifier.SetSelf(nil, keymgr.LiveNode{PodCIDRs: prefixes("10.244.1.128/25")})
		}},
		{"unknown preshared-key mode", keymgr.ErrPSK, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.PSK = "sometimes" }},
		{"requires what this node lacks", keymgr.ErrPSK, func(_ *testing.T, _ *scene, s *keymgr.Statement) { s.PSK = keymgr.PSKRequired }},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t)
			_, err := s.verifier.Verify(s.a.Edit(func(stmt *keymgr.Statement) { tc.edit(t, s, stmt) }), s.a.Live)
			wantReason(t, err, tc.want)

			// Nothing of it was remembered: the honest statement still passes.
			s.verifier.SetSelf(nil, keymgr.LiveNode{})
			mustVerify(t, s.verifier, s.a.Sign(), s.a.Live)
		})
	}
}

// Each case changes one thing around the statement.
func TestVerifyRefusesEnvelope(t *testing.T) {
	type result struct {
		signed keymgr.Signed
		live   keymgr.LiveNode
	}
	cases := []struct {
		name string
		want error
		make func(*testing.T, *scene) result
	}{
		{"payload changed", keymgr.ErrSignature, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Payload = bytes.Replace(signed.Payload, []byte(`"10.244.1.0/24"`), []byte(`"10.244.1.0/25"`), 1)
			return result{signed, s.a.Live}
		}},
		{"no signature", keymgr.ErrSignature, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Signature = nil
			return result{signed, s.a.Live}
		}},
		{"signature of another node", keymgr.ErrSignature, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Signature = s.b.Forge(signed.Payload).Signature
			return result{signed, s.a.Live}
		}},
		{"signed by another node", keymgr.ErrIdentity, func(_ *testing.T, s *scene) result {
			return result{s.b.Forge(s.a.Sign().Payload), s.a.Live}
		}},
		{"under another node's name", keymgr.ErrIdentity, func(_ *testing.T, s *scene) result {
			return result{s.a.Sign(), s.b.Live}
		}},
		{"node made anew under another UID", keymgr.ErrIdentity, func(_ *testing.T, s *scene) result {
			live := s.a.Live
			live.ID.UID = "new"
			return result{s.a.Sign(), live}
		}},
		{"no live node", keymgr.ErrUnknownNode, func(_ *testing.T, s *scene) result {
			return result{s.a.Sign(), keymgr.LiveNode{}}
		}},
		{"about this node", keymgr.ErrSelf, func(_ *testing.T, s *scene) result {
			n := s.Node("self", "10.244.3.0/24")
			return result{n.Sign(), n.Live}
		}},
		{"under this node's name", keymgr.ErrSelf, func(_ *testing.T, s *scene) result {
			live := s.a.Live
			live.ID.Name = "self"
			return result{s.a.Sign(), live}
		}},
		{"under this node's UID", keymgr.ErrSelf, func(_ *testing.T, s *scene) result {
			live := s.a.Live
			live.ID.UID = keytest.ID("self").UID
			return result{s.a.Sign(), live}
		}},
		{"certificate from the future", keymgr.ErrNotYetValid, func(_ *testing.T, s *scene) result {
			s.Clock.Add(time.Hour)
			s.Certify(s.a)
			signed := s.a.Edit(func(st *keymgr.Statement) { st.IssuedAt = st.IssuedAt.Add(-time.Hour) })
			s.Clock.Add(-time.Hour)
			return result{signed, s.a.Live}
		}},
		{"foreign authority", keymgr.ErrChain, func(t *testing.T, s *scene) result {
			n := keytest.NewCluster(t).Node("a", "10.244.1.0/24")
			return result{n.Sign(), n.Live}
		}},
		{"intermediate missing", keymgr.ErrChain, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Chain = signed.Chain[:1]
			return result{signed, s.a.Live}
		}},
		{"intermediate as leaf", keymgr.ErrCertificate, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Chain = signed.Chain[1:]
			return result{signed, s.a.Live}
		}},
		{"chain is no certificate", keymgr.ErrChain, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Chain = [][]byte{{0x30, 0x00}}
			return result{signed, s.a.Live}
		}},
		{"no chain", keymgr.ErrTooLarge, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Chain = nil
			return result{signed, s.a.Live}
		}},
		{"long chain", keymgr.ErrTooLarge, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			for len(signed.Chain) < 6 {
				signed.Chain = append(signed.Chain, signed.Chain[1])
			}
			return result{signed, s.a.Live}
		}},
		{"big certificate", keymgr.ErrTooLarge, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Chain = append(signed.Chain, make([]byte, 9<<10))
			return result{signed, s.a.Live}
		}},
		{"big signature", keymgr.ErrTooLarge, func(_ *testing.T, s *scene) result {
			signed := s.a.Sign()
			signed.Signature = make([]byte, 81)
			return result{signed, s.a.Live}
		}},
		{"big payload", keymgr.ErrTooLarge, func(_ *testing.T, s *scene) result {
			return result{s.a.Forge(bytes.Repeat([]byte(" "), 17<<10)), s.a.Live}
		}},
		{"payload is no JSON", keymgr.ErrFormat, func(_ *testing.T, s *scene) result {
			return result{s.a.Forge([]byte("nodekey")), s.a.Live}
		}},
		{"pod CIDR left the live node", keymgr.ErrPodCIDR, func(_ *testing.T, s *scene) result {
			live := s.a.Live
			live.PodCIDRs = live.PodCIDRs[1:]
			return result{s.a.Sign(), live}
		}},
		{"pod CIDR is in the live node only", keymgr.ErrPodCIDR, func(_ *testing.T, s *scene) result {
			live := s.a.Live
			more := netip.MustParsePrefix("10.244.5.0/24")
			live.PodCIDRs = append([]netip.Prefix{more}, live.PodCIDRs...)
			return result{s.a.Edit(func(st *keymgr.Statement) { st.PodCIDRs = []netip.Prefix{more} }), live}
		}},
		{"endpoint left the live node", keymgr.ErrEndpoint, func(_ *testing.T, s *scene) result {
			live := s.a.Live
			live.Addresses = []netip.Addr{netip.MustParseAddr("10.9.9.9")}
			return result{s.a.Sign(), live}
		}},
		{"both were certified for one pod CIDR", keymgr.ErrPodCIDROverlap, func(_ *testing.T, s *scene) result {
			n := s.Node("n", "10.244.2.128/25")
			return result{n.Sign(), n.Live}
		}},
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			s := newScene(t)
			r := tc.make(t, s)
			_, err := s.verifier.Verify(r.signed, r.live)
			wantReason(t, err, tc.want)
		})
	}
}

func TestVerifyNeedsRoots(t *testing.T) {
	c := keytest.NewCluster(t)
	v, err := keymgr.NewVerifier(c.VerifierConfig("self"))
	if err != nil {
		t.Fatal(err)
	}
	n := c.Node("a")
	_, err = v.Verify(n.Sign(), n.Live)
	wantReason(t, err, keymgr.ErrNoRoots)

	if err := v.SetRoots([]byte("rubbish")); !errors.Is(err, keymgr.ErrBundle) {
		t.Errorf("SetRoots(rubbish) = %v, want ErrBundle", err)
	}
	if err := v.SetRoots(c.Authority.Bundle()); err != nil {
		t.Fatal(err)
	}
	mustVerify(t, v, n.Sign(), n.Live)
	if err := v.SetRoots(nil); err == nil {
		t.Error("SetRoots(nil) passed, want an error")
	}
	mustVerify(t, v, n.Sign(), n.Live)
}

// When the roots change, what was verified under the old ones is verified again.
func TestVerifyAgainAfterRootsChanged(t *testing.T) {
	s := newScene(t)
	signed := s.a.Sign()
	mustVerify(t, s.verifier, signed, s.a.Live)
	if err := s.verifier.SetRoots(keytest.NewCluster(t).Authority.Bundle()); err != nil {
		t.Fatal(err)
	}
	_, err := s.verifier.Verify(signed, s.a.Live)
	wantReason(t, err, keymgr.ErrChain)
}

func TestVerifyAddressRanges(t *testing.T) {
	c := keytest.NewCluster(t)
	cfg := c.VerifierConfig("self")
	cfg.AddressRanges = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}
	v := c.Open(cfg)
	n := c.Node("a")
	n.Input.Endpoints = append(n.Input.Endpoints, netip.MustParseAddr("192.0.2.7"))
	mustVerify(t, v, n.Sign(), n.Live)
	n.Input.Endpoints = append(n.Input.Endpoints, netip.MustParseAddr("192.0.3.7"))
	s := n.Sign()
	_, err := v.Verify(s, n.Live)
	wantReason(t, err, keymgr.ErrEndpoint)
}

func TestPSKModesAgree(t *testing.T) {
	all := []keymgr.PSKMode{keymgr.PSKRequired, keymgr.PSKPreferred, keymgr.PSKOff}
	for _, mine := range all {
		for _, theirs := range all {
			c := keytest.NewCluster(t)
			cfg := c.VerifierConfig("self")
			cfg.PSK = mine
			n := c.Node("a")
			n.Input.PSK, n.Input.PSKPort = theirs, 7000
			p, err := c.Open(cfg).Verify(n.Sign(), n.Live)
			clash := mine != theirs && mine != keymgr.PSKPreferred && theirs != keymgr.PSKPreferred
			if clash {
				wantReason(t, err, keymgr.ErrPSK)
			} else if err != nil || p.PSK != theirs || p.PSKPort != 7000 {
				t.Errorf("own mode %q, peer %q: got %q and error %v", mine, theirs, p.PSK, err)
			}
		}
	}
}

func TestVerifyErrorNamesNodeAndValues(t *testing.T) {
	s := newScene(t)
	_, err := s.verifier.Verify(s.a.Edit(func(st *keymgr.Statement) { st.Keys[0].Key = s.b.Input.Keys[0].Public }), s.a.Live)
	for _, part := range []string{s.a.Live.ID.String(), s.b.Live.ID.String(), s.b.Input.Keys[0].Public.String()} {
		if err == nil || !strings.Contains(err.Error(), part) {
			t.Errorf("error %v does not name %s", err, part)
		}
	}
}
