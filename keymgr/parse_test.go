// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"bytes"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
)

const goodPayload = `{"type":"nodekey/v1","trustDomain":"td","nodeName":"a","nodeUID":"u","seq":5,` +
	`"prevSeq":4,"prevHash":"0102030405060708010203040506070801020304050607080102030405060708",` +
	`"issuedAt":"2026-01-02T03:04:05Z","notAfter":"2026-01-05T03:04:05Z","keys":[{"gen":7,` +
	`"wgPub":"CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=","notBefore":"2026-01-02T03:04:05Z",` +
	`"notAfter":"2026-01-05T03:04:05Z","ports":[51873,51874]}],"revokedGens":[3],` +
	`"endpoints":["10.0.0.1","fd00::1"],"pskPort":7000,"psk":"required","podCIDRs":["10.244.1.0/24","fd00:1::/64"]}`

func TestParseStatement(t *testing.T) {
	issued := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	want := keymgr.Statement{
		Type: "nodekey/v1", TrustDomain: "td", NodeName: "a", NodeUID: "u", Seq: 5, PrevSeq: 4,
		PrevHash: keymgr.Hash(bytes.Repeat([]byte{1, 2, 3, 4, 5, 6, 7, 8}, 4)),
		IssuedAt: issued, NotAfter: issued.Add(72 * time.Hour),
		Keys: []keymgr.StatementKey{{
			Generation: 7, Key: keymgr.PublicKey{9}, NotBefore: issued, NotAfter: issued.Add(72 * time.Hour),
			Ports: keymgr.Ports{51873, 51874},
		}},
		RevokedGens: []uint64{3},
		Endpoints:   []netip.Addr{netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("fd00::1")},
		PSKPort:     7000, PSK: keymgr.PSKRequired,
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24"), netip.MustParsePrefix("fd00:1::/64")},
	}
	got, err := keymgr.ParseStatement([]byte(goodPayload))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
		cmp.Comparer(func(a, b netip.Prefix) bool { return a == b })); diff != "" {
		t.Errorf("statement (-want +got):\n%s", diff)
	}
	encoded, err := got.Encode()
	if err != nil || string(encoded) != goodPayload {
		t.Errorf("Encode gave %s and error %v, want %s", encoded, err, goodPayload)
	}
}

// A newer node may say more than this reader knows.
func TestParseStatementSkipsUnknownFields(t *testing.T) {
	more := strings.Replace(goodPayload, `"seq":5`, `"seq":5,"colour":{"of":["the",{"sea":null}]}`, 1)
	s, err := keymgr.ParseStatement([]byte(more))
	if err != nil || s.Seq != 5 {
		t.Errorf("got %+v, %v", s, err)
	}
}

func TestParseStatementRefuses(t *testing.T) {
	replace := func(old, with string) string {
		if !strings.Contains(goodPayload, old) {
			t.Fatalf("no %q in the good payload", old)
		}
		return strings.Replace(goodPayload, old, with, 1)
	}
	cases := map[string]string{
		"empty":                     "",
		"null":                      "null",
		"array":                     "[" + goodPayload + "]",
		"number":                    "5",
		"cut short":                 goodPayload[:len(goodPayload)-1],
		"two objects":               goodPayload + "{}",
		"data after it":             goodPayload + "x",
		"not UTF-8":                 replace(`"td"`, "\"t\xffd\""),
		"field twice":               replace(`"seq":5`, `"seq":5,"seq":6`),
		"field twice in a key":      replace(`"gen":7`, `"gen":7,"gen":8`),
		"field twice, other case":   replace(`"seq":5`, `"seq":5,"SEQ":6`),
		"unknown field twice":       replace(`"seq":5`, `"seq":5,"x":1,"x":2`),
		"known field, other case":   replace(`"seq":5`, `"Seq":5`),
		"known field, Kelvin sign":  replace(`"psk"`, "\"ps\u212a\""),
		"known field, escaped twin": replace(`"seq":5`, `"seq":5,"\u0073eq":6`),
		"field without a name":      replace(`"seq":5`, `"seq":5,"":6`),
		"nested deeply":             replace(`"seq":5`, `"seq":5,"x":`+strings.Repeat("[", 20)+strings.Repeat("]", 20)),
		"sequence as text":          replace(`"seq":5`, `"seq":"5"`),
		"sequence negative":         replace(`"seq":5`, `"seq":-5`),
		"sequence beyond 64 bits":   replace(`"seq":5`, `"seq":18446744073709551616`),
		"sequence as float":         replace(`"seq":5`, `"seq":5.5`),
		"one port":                  replace(`[51873,51874]`, `[51873]`),
		"three ports":               replace(`[51873,51874]`, `[51873,51874,51875]`),
		"port beyond 16 bits":       replace(`[51873,51874]`, `[51873,65536]`),
		"key too short":             replace(`CQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=`, `CQAA`),
		"key with stray bits":       replace(`AAA=`, `AAB=`),
		"hash too short":            replace(`"0102`, `"01`),
		"hash no hex":               replace(`"0102`, `"01zz`),
		"prefix without bits":       replace(`10.244.1.0/24`, `10.244.1.0`),
		"address with port":         replace(`10.0.0.1`, `10.0.0.1:80`),
		"time without zone":         replace(`2026-01-02T03:04:05Z`, `2026-01-02T03:04:05`),
	}
	for name, payload := range cases {
		if s, err := keymgr.ParseStatement([]byte(payload)); !errors.Is(err, keymgr.ErrFormat) {
			t.Errorf("%s: got %+v and error %v, want ErrFormat", name, s, err)
		}
	}
	if _, err := keymgr.ParseStatement(bytes.Repeat([]byte(" "), 20000)); !errors.Is(err, keymgr.ErrTooLarge) {
		t.Errorf("20000 bytes: error %v, want ErrTooLarge", err)
	}
}

// What parses must say the same after a round trip, and say every field once.
func FuzzParseStatement(f *testing.F) {
	f.Add([]byte(goodPayload))
	f.Add([]byte(`{"keys":[{}],"x":{"y":[1,2.5e3,null,true,"\u0000"]}}`))
	f.Add([]byte(`{"seq":1,"SEQ":2}`))
	f.Add([]byte(`{"keys":[{"ports":[1,2,3]}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, err := keymgr.ParseStatement(data)
		if err != nil {
			if label := keymgr.RejectReason(err); label != "format" && label != "size" {
				t.Fatalf("error %v has label %q", err, label)
			}
			return
		}
		encoded, err := s.Encode()
		if err != nil {
			return // years beyond 9999 parse but do not print
		}
		again, err := keymgr.ParseStatement(encoded)
		if err != nil {
			t.Fatalf("own encoding %s: %v", encoded, err)
		}
		twice, err := again.Encode()
		if err != nil || !bytes.Equal(encoded, twice) {
			t.Fatalf("encodings differ: %s and %s (%v)", encoded, twice, err)
		}
		var loose map[string]any
		if err := json.Unmarshal(data, &loose); err != nil {
			t.Fatalf("encoding/json refuses what was taken: %v", err)
		}
		if seq, ok := loose["seq"].(float64); ok && float64(s.Seq) != seq {
			t.Fatalf("seq is %d, a reader that knows no case reads %v", s.Seq, seq)
		}
	})
}

func TestParseBundle(t *testing.T) {
	one, two := keytest.NewCluster(t).Authority.Bundle(), keytest.NewCluster(t).Authority.Bundle()
	both := slices.Concat([]byte("# two roots\n"), one, []byte("\n# second\n"), two, one)
	if roots, err := keymgr.ParseBundle(both); err != nil || len(roots) != 2 {
		t.Errorf("%d roots, %v; want 2", len(roots), err)
	}
	c := keytest.NewCluster(t)
	n := c.Node("a")
	leaf := keymgr.EncodeChain(n.Sign().Chain[:1])
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})
	for name, bundle := range map[string][]byte{
		"empty":       nil,
		"text":        []byte("hello"),
		"leaf":        slices.Concat(one, leaf),
		"private key": slices.Concat(one, key),
		"rubbish":     pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte("x")}),
		"cut short":   slices.Concat(one, two[:len(two)-9]),
		"too large":   bytes.Repeat([]byte("\n"), 300<<10),
	} {
		if roots, err := keymgr.ParseBundle(bundle); !errors.Is(err, keymgr.ErrBundle) {
			t.Errorf("%s: %d roots and error %v, want ErrBundle", name, len(roots), err)
		}
	}
}

func FuzzParseBundle(f *testing.F) {
	// Not a cluster of its own: seeds must be the same in every process.
	root, err := os.ReadFile("testdata/root.pem")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(root)
	f.Add(slices.Concat(root, []byte("text\n"), root))
	f.Add(root[:len(root)/2])
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		roots, err := keymgr.ParseBundle(data)
		if err != nil {
			if !errors.Is(err, keymgr.ErrBundle) {
				t.Fatalf("error %v is no ErrBundle", err)
			}
			return
		}
		if len(roots) == 0 || slices.ContainsFunc(roots, func(c *x509.Certificate) bool { return !c.IsCA }) {
			t.Fatalf("%d roots, not all of them authorities", len(roots))
		}
		var ders [][]byte
		for _, r := range roots {
			ders = append(ders, r.Raw)
		}
		again, err := keymgr.ParseBundle(keymgr.EncodeChain(ders))
		if err != nil || !slices.EqualFunc(roots, again, (*x509.Certificate).Equal) {
			t.Fatalf("%d roots came back as %d (%v)", len(roots), len(again), err)
		}
	})
}

func TestChainPEM(t *testing.T) {
	chain := [][]byte{{1, 2}, {3}}
	got, err := keymgr.DecodeChain(keymgr.EncodeChain(chain))
	if err != nil || !slices.EqualFunc(got, chain, bytes.Equal) {
		t.Errorf("chain came back as %v, %v", got, err)
	}
	key := pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte{1}})
	for _, bad := range [][]byte{nil, []byte("x"), key, append(keymgr.EncodeChain(chain), 'x')} {
		if got, err := keymgr.DecodeChain(bad); err == nil {
			t.Errorf("%q was taken as %v", bad, got)
		}
	}
}

func TestNodeURI(t *testing.T) {
	id := keymgr.NodeID{Name: "node-1.example", UID: "8B1c-2"}
	u := id.URI("td.example")
	if got, want := u.String(), "spiffe://td.example/node/node-1.example/8B1c-2"; got != want {
		t.Fatalf("URI is %s, want %s", got, want)
	}
	td, back, err := keymgr.ParseURI(u)
	if err != nil || td != "td.example" || back != id {
		t.Errorf("ParseURI gave %q, %v, %v", td, back, err)
	}
	for _, bad := range []string{
		"spiffe://td/node/a", "spiffe://td/node/a/u/x", "spiffe://td/pod/a/u", "https://td/node/a/u",
		"spiffe://td/node//u", "spiffe://td/node/a/", "spiffe:///node/a/u", "spiffe://td:443/node/a/u",
		"spiffe://user@td/node/a/u", "spiffe://td/node/a/u?x", "spiffe://td/node/a/u#x", "spiffe://td/node/%61/u",
		"spiffe://TD/node/a/u", "spiffe://td/node/A/u", "spiffe://10.0.0.1/node/a/u", "spiffe://td/node/a/u%2fx",
		"spiffe:td/node/a/u", "spiffe://td/node/../u", "spiffe://td./node/a/u",
	} {
		u, err := url.Parse(bad)
		if err != nil {
			t.Fatalf("%s: %v", bad, err)
		}
		if td, id, err := keymgr.ParseURI(u); err == nil {
			t.Errorf("%s was taken as %s, %v", bad, td, id)
		}
	}
}

func TestPrivateKeyHidesItself(t *testing.T) {
	k := keytest.WGKey(t, "secret", 1, time.Time{})
	var logged bytes.Buffer
	slog.New(slog.NewJSONHandler(&logged, nil)).Info("x", "key", k.Private, "all", fmt.Sprintf("%+v", k))
	for _, shown := range []string{
		fmt.Sprint(k.Private), fmt.Sprintf("%x %v %#v %s %+v", k.Private, k, k, k.Private, k), logged.String(),
	} {
		raw := keymgr.PublicKey(k.Private) // same bytes, but it prints
		for _, leak := range []string{raw.String(), fmt.Sprintf("%x", raw[:]), fmt.Sprint(raw[0], raw[1], raw[2])} {
			if strings.Contains(shown, leak) {
				t.Errorf("%s shows the private key", shown)
			}
		}
	}
}

func TestPublicKeyText(t *testing.T) {
	want := keytest.WGKey(t, "a", 1, time.Time{}).Public
	text, err := want.MarshalText()
	if err != nil || string(text) != want.String() {
		t.Fatalf("MarshalText gave %s, %v", text, err)
	}
	var got keymgr.PublicKey
	if err := got.UnmarshalText(text); err != nil || got != want {
		t.Errorf("key came back as %s, %v", got, err)
	}
}

func TestPorts(t *testing.T) {
	seen := map[uint16]bool{}
	for own := range uint64(2) {
		for peer := range uint64(2) {
			p := keymgr.Port(51871, 6+own, 8+peer)
			if want := 51871 + uint16(2*own+peer); p != want {
				t.Errorf("port of generations %d and %d is %d, want %d", 6+own, 8+peer, p, want)
			}
			seen[p] = true
		}
	}
	if len(seen) != 4 {
		t.Errorf("%d ports for four combinations", len(seen))
	}
}

func TestRejectReason(t *testing.T) {
	if got := keymgr.RejectReason(nil); got != "" {
		t.Errorf("RejectReason(nil) = %q", got)
	}
	if got := keymgr.RejectReason(errors.New("x")); got != "other" {
		t.Errorf("RejectReason of a foreign error = %q", got)
	}
	if got := keymgr.RejectReason(fmt.Errorf("a: %w", fmt.Errorf("b: %w", keymgr.ErrFork))); got != "fork" {
		t.Errorf("RejectReason of a wrapped ErrFork = %q", got)
	}
}
