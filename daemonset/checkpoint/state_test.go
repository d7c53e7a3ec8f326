// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package checkpoint

import (
	"errors"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
)

func node(name, cidr, address string) keymgr.LiveNode {
	return keymgr.LiveNode{
		ID: keytest.ID(name), PodCIDRs: []netip.Prefix{netip.MustParsePrefix(cidr)}, Addresses: []netip.Addr{netip.MustParseAddr(address)},
	}
}

func example() State {
	hash := keymgr.HashPayload([]byte("statement"))
	return State{
		Version: version, TrustDomain: keytest.TrustDomain, Self: node("self", "10.244.1.0/24", "192.0.2.1"),
		ClusterCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16"), netip.MustParsePrefix("fd00:244::/56")},
		Published:    &hash,
		Others:       []keymgr.LiveNode{node("new", "fd00:244::/64", "fd00::7"), {ID: keytest.ID("bare")}},
	}
}

func equate() cmp.Options {
	return cmp.Options{
		cmpopts.EquateEmpty(), cmp.Comparer(func(a, b netip.Addr) bool { return a == b }), cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	}
}

func encoded(t testing.TB, p State) []byte {
	t.Helper()
	data, err := p.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return data
}

func TestStateIsReadAsWritten(t *testing.T) {
	got, err := Parse(encoded(t, example()))
	if diff := cmp.Diff(example(), got, equate()); err != nil || diff != "" {
		t.Errorf("error %v, read back (-want +got):\n%s", err, diff)
	}
}

func TestParseRefuses(t *testing.T) {
	good := string(encoded(t, example()))
	change := func(from, to string) string {
		t.Helper()
		if !strings.Contains(good, from) {
			t.Fatalf("no %s in %s", from, good)
		}
		return strings.Replace(good, from, to, 1)
	}
	for name, tc := range map[string]struct{ data, want string }{
		"empty":             {"", "EOF"},
		"half":              {good[:len(good)/2], "EOF"},
		"more":              {good + "{}", "data after"},
		"no object":         {"[]", "array"},
		"older version":     {change(`"version":1`, `"version":0`), "version 0"},
		"newer version":     {change(`"version":1`, `"version":2`), "version 2"},
		"no version":        {change(`"version":1,`, ``), "version 0"},
		"no cluster":        {change(keytest.TrustDomain, ""), "trust domain"},
		"name":              {change(`"name":"self"`, `"name":"../x"`), "node name"},
		"self without CIDR": {change(`"podCIDRs":["10.244.1.0/24"]`, `"podCIDRs":[]`), "without pod ranges"},
		"host bits":         {change("10.244.1.0/24", "10.244.1.1/24"), "address range"},
		"host bits, other":  {change("fd00:244::/64", "fd00:244::1/64"), "address range"},
		"cluster host bits": {change("10.244.0.0/16", "10.244.0.1/16"), "address range"},
		"zone":              {change("fd00::7", "fe80::7%eth0"), "address"},
		"mapped":            {change("192.0.2.1", "::ffff:192.0.2.1"), "address"},
		"no address":        {change("192.0.2.1", ""), "address"},
		"twice":             {change(`"name":"new"`, `"name":"self"`), "twice"},
		"UID twice":         {change(keytest.ID("bare").UID, keytest.ID("new").UID), "twice"},
		"hash":              {change(`"published":"`, `"published":"00`), "hash"},
		"large":             {good + strings.Repeat(" ", maxSize), "bytes, at most"},
	} {
		if _, err := Parse([]byte(tc.data)); !errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: error %v, want ErrFormat with %q", name, err, tc.want)
		}
	}
}

func TestEncodeRefusesWhatParseWould(t *testing.T) {
	p := example()
	p.Self.Addresses = nil
	if _, err := p.Encode(); err == nil {
		t.Error("a checkpoint was written that cannot be read")
	}
}

func TestCheckpointOfAnotherNode(t *testing.T) {
	p := example()
	owner := func(id keymgr.NodeID, domain string) *identity.Owner {
		return &identity.Owner{Node: id, TrustDomain: domain}
	}
	reborn := p.Self.ID
	reborn.UID = "1-2"
	for name, tc := range map[string]struct {
		node  string
		owner *identity.Owner
		good  bool
	}{
		"its own":         {"self", owner(p.Self.ID, p.TrustDomain), true},
		"without keys":    {"self", nil, true},
		"another name":    {"other", nil, false},
		"made anew":       {"self", owner(reborn, p.TrustDomain), false},
		"another cluster": {"self", owner(p.Self.ID, "5f1c9c0e-7d1f-4a53-9c55-3d1f3f0a5a11"), false},
	} {
		if err := p.mustBe(tc.node, tc.owner); (err == nil) != tc.good || err != nil && !errors.Is(err, ErrOther) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add(encoded(f, example()))
	f.Add([]byte(`{"version":1,"trustDomain":"a","self":{"id":{"name":"n","uid":"u"},"podCIDRs":["fd00::/64"],"addresses":["fd00::1"]}}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		p, err := Parse(data)
		if err != nil {
			if !errors.Is(err, ErrFormat) {
				t.Fatalf("error does not wrap ErrFormat: %v", err)
			}
			return
		}
		again, err := Parse(encoded(t, p))
		if diff := cmp.Diff(p, again, equate()); err != nil || diff != "" {
			t.Errorf("error %v, read back (-want +got):\n%s", err, diff)
		}
		snap := p.snapshot(nil, keymgr.Signed{})
		if len(snap.Nodes) != 1+len(p.Others) {
			t.Errorf("%d nodes of %d", len(snap.Nodes), 1+len(p.Others))
		}
	})
}
