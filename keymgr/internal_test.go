// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr/nodenet"
)

// The names against which ParseStatement compares are those of the types.
func TestStatementFieldsMatchTypes(t *testing.T) {
	want := fieldNames(reflect.TypeFor[Statement](), reflect.TypeFor[StatementKey]())
	if got := slices.Sorted(slices.Values(statementFields())); !slices.Equal(got, want) {
		t.Errorf("statementFields are %v, the types have %v", got, want)
	}
	want = fieldNames(reflect.TypeFor[RevocationList](), reflect.TypeFor[RevokedNode](), reflect.TypeFor[CertificateSerial]())
	if got := slices.Sorted(slices.Values(revocationFields())); !slices.Equal(got, want) {
		t.Errorf("revocationFields are %v, the types have %v", got, want)
	}
}

// fieldNames gives the JSON names in types, each once.
func fieldNames(types ...reflect.Type) []string {
	var names []string
	for _, typ := range types {
		for f := range typ.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return slices.Compact(names)
}

// dumbClaims answers the same questions by looking at everything.
type dumbClaims []Statement

func (d dumbClaims) overlaps(p netip.Prefix, id NodeID) bool {
	return slices.ContainsFunc(d, func(s Statement) bool {
		return s.ID() != id && slices.ContainsFunc(s.PodCIDRs, p.Overlaps)
	})
}

func TestClaimsAgainstOracle(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	random := func() netip.Prefix {
		a := netip.AddrFrom4([4]byte{10, byte(rng.IntN(4)), byte(rng.IntN(256)), byte(rng.IntN(256))})
		if rng.IntN(3) == 0 {
			a = netip.AddrFrom16([16]byte{0: 0xfd, 15: byte(rng.IntN(256))})
			return netip.PrefixFrom(a, 116+rng.IntN(13)).Masked()
		}
		return netip.PrefixFrom(a, 10+rng.IntN(23)).Masked()
	}
	fast, slow := newClaims(), dumbClaims{}
	refused := 0
	for step := range 20000 {
		s := Statement{NodeName: fmt.Sprint("n", rng.IntN(40)), NodeUID: "u", PodCIDRs: []netip.Prefix{random()}}
		err := fast.checkPrefix(s.PodCIDRs[0], s.ID())
		if want := slow.overlaps(s.PodCIDRs[0], s.ID()); want != errors.Is(err, ErrPodCIDROverlap) {
			t.Fatalf("step %d: %v of %v: got %v, the oracle says overlap is %v", step, s.PodCIDRs, s.ID(), err, want)
		}
		if err != nil {
			refused++
			continue
		}
		if i := slices.IndexFunc(slow, func(o Statement) bool { return o.ID() == s.ID() }); i >= 0 {
			fast.release(slow[i])
			slow = slices.Delete(slow, i, i+1)
		}
		if rng.IntN(4) > 0 {
			fast.hold(s)
			slow = append(slow, s)
		}
		if len(fast.prefixes) != len(slow) {
			t.Fatalf("step %d: %d prefixes held, want %d", step, len(fast.prefixes), len(slow))
		}
	}
	if refused < 1000 || refused > 19000 {
		t.Errorf("%d of 20000 refused: the test does not test much", refused)
	}
}

func TestCanonicalKeys(t *testing.T) {
	top := func(low byte) (k PublicKey) {
		for i := range k {
			k[i] = 0xff
		}
		k[0], k[31] = low, 0x7f
		return k
	}
	for _, tc := range []struct {
		key  PublicKey
		want bool
	}{
		{PublicKey{9}, true},
		{top(0xec), true},  // 2^255-20
		{top(0xed), false}, // 2^255-19, another name of 0
		{top(0xff), false},
		{PublicKey{31: 0x80}, false},
		{PublicKey{1: 1, 31: 0x7f}, true},
	} {
		if got := tc.key.canonical(); got != tc.want {
			t.Errorf("canonical(%x) = %v, want %v", tc.key, got, tc.want)
		}
	}
}

func TestLowOrderKeys(t *testing.T) {
	if err := (PublicKey{9}).check(); err != nil {
		t.Errorf("base point: %v", err)
	}
	for _, k := range []PublicKey{
		{},
		{1},
		{
			0xe0, 0xeb, 0x7a, 0x7c, 0x3b, 0x41, 0xb8, 0xae, 0x16, 0x56, 0xe3, 0xfa, 0xf1, 0x9f, 0xc4, 0x6a,
			0xda, 0x09, 0x8d, 0xeb, 0x9c, 0x32, 0xb1, 0xfd, 0x86, 0x62, 0x05, 0x16, 0x5f, 0x49, 0xb8, 0x00,
		},
	} {
		if err := k.check(); !errors.Is(err, ErrKey) {
			t.Errorf("check(%s) = %v, want ErrKey", k, err)
		}
	}
}

// TestCertificatesThatDidNotNameAddresses, of the version before, vouch for what statement
// and live Node both name, as far as a node can have it; a certificate that does name them
// vouches for those.
func TestCertificatesThatDidNotNameAddresses(t *testing.T) {
	addrs := func(all ...string) (out []netip.Addr) {
		for _, a := range all {
			out = append(out, netip.MustParseAddr(a))
		}
		return out
	}
	v, err := NewVerifier(VerifierConfig{TrustDomain: "td", Self: NodeID{Name: "self", UID: "self"}})
	if err != nil {
		t.Fatal(err)
	}
	v.SetRules(nodenet.Rules{PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, APIServer: addrs("192.0.2.9")})
	v.SetSelf(nil, LiveNode{Addresses: addrs("192.0.2.5")})
	for named, want := range map[bool]string{false: "[192.0.2.1 192.0.2.2]", true: "[192.0.2.2]"} {
		c := &candidate{
			leaf: &NodeCertificate{NamesAddresses: named, Addresses: addrs("192.0.2.2", "192.0.2.3", "192.0.2.9")},
			stmt: Statement{Endpoints: addrs("192.0.2.1", "192.0.2.2", "10.244.0.1", "192.0.2.9", "127.0.0.1", "192.0.2.5", "192.0.2.4")},
			live: LiveNode{ID: NodeID{Name: "a", UID: "a"}, Created: time.Unix(1, 0), Addresses: addrs(
				"192.0.2.1", "192.0.2.2", "192.0.2.3", "10.244.0.1", "192.0.2.9", "127.0.0.1", "192.0.2.5",
			)},
		}
		if err := v.checkAddresses(c); err != nil || fmt.Sprint(c.addresses) != want {
			t.Errorf("addresses named: %t: %s, %v, want %s", named, c.addresses, err, want)
		}
	}
}
