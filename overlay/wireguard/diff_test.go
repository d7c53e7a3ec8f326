// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package wireguard

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/overlaytest"
)

func udp(a netip.AddrPort) *net.UDPAddr { return net.UDPAddrFromAddrPort(a) }

func endpoint(s string) netip.AddrPort { return netip.MustParseAddrPort(s) }

// keyring makes verified keys, one for each name.
type keyring map[string]keymgr.PeerKey

func newKeyring(t *testing.T, names ...string) keyring {
	t.Helper()
	ca, k := overlaytest.NewAuthority(t), keyring{}
	for i, name := range names {
		id := keymgr.NodeID{Name: "n-" + name, UID: fmt.Sprint(i)}
		k[name] = ca.Verify(t, overlaytest.Key{ID: id, Generation: 1, BasePort: 1000, Public: overlaytest.PublicKey(t, name)})[0]
	}
	return k
}

func (k keyring) peer(name, at string, initiate bool, allowed ...string) overlay.TunnelPeer {
	p := overlay.TunnelPeer{Key: k[name], Endpoint: endpoint(at), Initiate: initiate}
	for _, a := range allowed {
		p.AllowedIPs = append(p.AllowedIPs, netip.MustParsePrefix(a))
	}
	return p
}

func (k keyring) wg(name string) wgtypes.Key { return wgtypes.Key(k[name].Key()) }

// text returns a configuration in the style of wg-set(8), with the names of keys.
func (k keyring) text(configs []wgtypes.PeerConfig) string {
	names := map[wgtypes.Key]string{bury([]net.IPNet{{}})[0].PublicKey: "nobody"}
	for n := range k {
		names[k.wg(n)] = n
	}
	var b strings.Builder
	for _, c := range configs {
		b.WriteString(names[c.PublicKey])
		if c.UpdateOnly {
			b.WriteString(" update")
		}
		if c.Remove {
			b.WriteString(" remove")
		}
		if c.Endpoint != nil {
			fmt.Fprintf(&b, " endpoint %s", c.Endpoint)
		}
		if c.PersistentKeepaliveInterval != nil {
			fmt.Fprintf(&b, " keepalive %s", *c.PersistentKeepaliveInterval)
		}
		if c.ReplaceAllowedIPs {
			b.WriteString(" replace")
		}
		for _, n := range c.AllowedIPs {
			fmt.Fprintf(&b, " +%s", prefix(n))
		}
		b.WriteByte('\n')
	}
	return b.String()
}

func TestDiff(t *testing.T) {
	k := newKeyring(t, "a", "b", "c")
	now := time.Unix(1_000_000, 0)
	a := k.peer("a", "192.0.2.1:1", true, "10.0.1.0/24", "192.0.2.1/32")
	b := k.peer("b", "192.0.2.2:1", false, "10.0.2.0/24")
	for _, tt := range []struct {
		name   string
		before []overlay.TunnelPeer
		roamed string // where peer a was last heard from, if elsewhere
		silent time.Duration
		forget bool // the daemon has restarted
		after  []overlay.TunnelPeer
		want   string
	}{
		{name: "nothing", before: []overlay.TunnelPeer{a, b}, after: []overlay.TunnelPeer{a, b}},
		{name: "first peers", after: []overlay.TunnelPeer{a, b}, want: `
a endpoint 192.0.2.1:1 keepalive 25s +10.0.1.0/24 +192.0.2.1/32
b endpoint 192.0.2.2:1 +10.0.2.0/24`},
		{name: "peer goes", before: []overlay.TunnelPeer{a, b}, after: []overlay.TunnelPeer{b}, want: "\na remove"},
		{name: "peer moves", before: []overlay.TunnelPeer{a}, after: []overlay.TunnelPeer{
			k.peer("a", "192.0.2.9:1", true, "10.0.1.0/24", "192.0.2.1/32"),
		}, want: "\na update endpoint 192.0.2.9:1"},
		{name: "range is added", before: []overlay.TunnelPeer{b}, after: []overlay.TunnelPeer{
			k.peer("b", "192.0.2.2:1", false, "10.0.2.0/24", "10.0.9.0/24"),
		}, want: "\nb update +10.0.9.0/24"},
		{name: "range is taken away and the rest is not touched", before: []overlay.TunnelPeer{a}, after: []overlay.TunnelPeer{
			k.peer("a", "192.0.2.1:1", true, "10.0.1.0/24"),
		}, want: "\nnobody +192.0.2.1/32\nnobody remove"},
		{name: "range changes its owner in one step", before: []overlay.TunnelPeer{a, b}, after: []overlay.TunnelPeer{
			k.peer("a", "192.0.2.1:1", true, "192.0.2.1/32"), k.peer("b", "192.0.2.2:1", false, "10.0.1.0/24", "10.0.2.0/24"),
		}, want: "\nb update +10.0.1.0/24"},
		{name: "new key takes over before the old one goes", before: []overlay.TunnelPeer{a}, after: []overlay.TunnelPeer{
			k.peer("c", "192.0.2.1:1", true, "10.0.1.0/24", "192.0.2.1/32"),
		}, want: `
c endpoint 192.0.2.1:1 keepalive 25s +10.0.1.0/24 +192.0.2.1/32
a remove`},
		{name: "the other side starts from now on", before: []overlay.TunnelPeer{a}, after: []overlay.TunnelPeer{
			k.peer("a", "192.0.2.1:1", false, "10.0.1.0/24", "192.0.2.1/32"),
		}, want: "\na update keepalive 0s"},
		{
			name: "a peer that has roamed is left there", before: []overlay.TunnelPeer{a}, after: []overlay.TunnelPeer{a},
			roamed: "198.51.100.7:4242", silent: time.Minute,
		},
		{
			name: "a peer that has roamed and is silent is called at home", before: []overlay.TunnelPeer{a}, after: []overlay.TunnelPeer{a},
			roamed: "198.51.100.7:4242", silent: 4 * time.Minute, want: "\na update endpoint 192.0.2.1:1",
		},
		{
			name: "after a restart the plan counts", before: []overlay.TunnelPeer{a}, after: []overlay.TunnelPeer{a},
			roamed: "198.51.100.7:4242", silent: time.Minute, forget: true, want: "\na update endpoint 192.0.2.1:1",
		},
		{
			name: "a peer that has roamed and moves", before: []overlay.TunnelPeer{a}, roamed: "198.51.100.7:4242", silent: time.Minute,
			after: []overlay.TunnelPeer{k.peer("a", "192.0.2.9:1", true, "10.0.1.0/24", "192.0.2.1/32")},
			want:  "\na update endpoint 192.0.2.9:1",
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f := newFake(t)
			f.apply(mustDiff(t, overlay.Tunnel{Peers: tt.before}, nil, situation{now: now}))
			s := situation{now: now, endpoints: map[keymgr.PublicKey]netip.AddrPort{}}
			for _, p := range tt.before {
				if !tt.forget {
					s.endpoints[p.Key.Key()] = p.Endpoint
				}
				f.handshake(wgtypes.Key(p.Key.Key()), p.Endpoint, now)
			}
			if tt.roamed != "" {
				f.handshake(k.wg("a"), endpoint(tt.roamed), now.Add(-tt.silent))
			}
			got := mustDiff(t, overlay.Tunnel{Peers: tt.after}, f.dev.Peers, s)
			if diff := cmp.Diff(strings.TrimPrefix(tt.want, "\n"), strings.TrimSuffix(k.text(got), "\n")); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestDiffAnnounces(t *testing.T) {
	k := newKeyring(t, "a", "b")
	lane := overlay.Tunnel{Peers: []overlay.TunnelPeer{k.peer("a", "192.0.2.1:1", true), k.peer("b", "192.0.2.2:1", false)}}
	f := newFake(t)
	f.apply(mustDiff(t, lane, nil, situation{announce: true}))
	if f.poked[k.wg("a")] != 1 || f.poked[k.wg("b")] != 1 {
		t.Errorf("handshakes started: %v, want one to each", f.poked)
	}
	f.apply(mustDiff(t, lane, f.dev.Peers, situation{}))
	if f.poked[k.wg("a")] != 1 || f.poked[k.wg("b")] != 1 {
		t.Errorf("handshakes started: %v, want no more", f.poked)
	}
	if got := f.dev.Peers[1].PersistentKeepaliveInterval; got != 0 {
		t.Errorf("this node goes on starting handshakes that are the peer's (%s)", got)
	}
}

func mustDiff(t *testing.T, lane overlay.Tunnel, have []wgtypes.Peer, s situation) []wgtypes.PeerConfig {
	t.Helper()
	out, err := diff(lane, have, s)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A preshared key is set together with its peer, changes in place, survives a restart of
// the daemon, and is removed when the plan no longer wants it. A peer that must have one
// and has none is left out, and the others are not.
func TestDiffOfPresharedKeys(t *testing.T) {
	k := newKeyring(t, "a", "b")
	a, b := k.peer("a", "192.0.2.1:1", true), k.peer("b", "192.0.2.2:1", false)
	a.Preshared = true
	f := newFake(t)
	knows := func(key keymgr.PresharedKey) situation {
		return situation{preshared: func(peer keymgr.PublicKey) (keymgr.PresharedKey, bool) {
			return key, peer == a.Key.Key() && !key.IsZero()
		}}
	}
	got, err := diff(overlay.Tunnel{Peers: []overlay.TunnelPeer{a, b}}, nil, knows(keymgr.PresharedKey{}))
	if !errors.Is(err, ErrNoPresharedKey) || len(got) != 1 || got[0].PublicKey != k.wg("b") {
		t.Fatalf("without a key: %s, %v", k.text(got), err)
	}
	lane := overlay.Tunnel{Peers: []overlay.TunnelPeer{a}}
	for _, step := range []struct {
		name    string
		knows   keymgr.PresharedKey
		want    wgtypes.Key
		changes int
	}{
		{"first", keymgr.PresharedKey{1}, wgtypes.Key{1}, 1},
		{"same", keymgr.PresharedKey{1}, wgtypes.Key{1}, 0},
		{"next", keymgr.PresharedKey{2}, wgtypes.Key{2}, 1},
		{"forgotten", keymgr.PresharedKey{}, wgtypes.Key{2}, 0},
	} {
		changes := mustDiff(t, lane, f.dev.Peers, knows(step.knows))
		if len(changes) != step.changes {
			t.Errorf("%s: %d changes, want %d", step.name, len(changes), step.changes)
		}
		f.apply(changes)
		if have := f.dev.Peers[0].PresharedKey; have != step.want {
			t.Errorf("%s: the device has another key", step.name)
		}
		if step.name != "first" && f.poked[k.wg("a")] != 1 {
			t.Errorf("%s: a handshake was started for a new preshared key", step.name)
		}
	}
	a.Preshared = false
	f.apply(mustDiff(t, overlay.Tunnel{Peers: []overlay.TunnelPeer{a}}, f.dev.Peers, knows(keymgr.PresharedKey{2})))
	if f.dev.Peers[0].PresharedKey != (wgtypes.Key{}) {
		t.Error("a key that is not wanted stays")
	}
}

// The node that asked for the preshared key initiates the handshake, also on a new device.
func TestDiffDoesNotAnnouncePresharedPeers(t *testing.T) {
	k := newKeyring(t, "a")
	a := k.peer("a", "192.0.2.1:1", false)
	a.Preshared = true
	f := newFake(t)
	s := situation{announce: true, preshared: func(keymgr.PublicKey) (keymgr.PresharedKey, bool) { return keymgr.PresharedKey{1}, true }}
	f.apply(mustDiff(t, overlay.Tunnel{Peers: []overlay.TunnelPeer{a}}, nil, s))
	if f.poked[k.wg("a")] != 0 {
		t.Error("a handshake crosses the peer's own")
	}
}

func (f *fakeDevice) apply(peers []wgtypes.PeerConfig) {
	if err := f.ConfigureDevice(f.dev.Name, wgtypes.Config{Peers: peers}); err != nil {
		f.t.Error(err)
	}
}

// randomLane assigns addresses of a small stock to peers of a small stock.
func randomLane(rng *rand.Rand, k keyring, names []string) overlay.Tunnel {
	var lane overlay.Tunnel
	stock := []string{"10.0.1.0/24", "10.0.2.0/24", "10.0.0.0/16", "192.0.2.1/32", "192.0.2.2/32", "fd00:1::/64", "2001:db8::1/128"}
	rng.Shuffle(len(stock), func(i, j int) { stock[i], stock[j] = stock[j], stock[i] })
	for _, name := range names {
		if rng.IntN(3) == 0 {
			continue
		}
		n := rng.IntN(min(3, len(stock)+1))
		at := fmt.Sprintf("192.0.2.%d:%d", 1+rng.IntN(3), 1000+rng.IntN(2))
		lane.Peers = append(lane.Peers, k.peer(name, at, rng.IntN(2) == 0, stock[:n]...))
		stock = stock[n:]
	}
	return lane
}

// TestDiffAlwaysReachesThePlan goes from one random tunnel to the next. It checks each
// moment in between: an address that a peer has before and after is never without its peer.
func TestDiffAlwaysReachesThePlan(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	names := []string{"a", "b", "c", "d", "e"}
	k := newKeyring(t, names...)
	f := newFake(t)
	for i := range 5000 {
		lane := randomLane(rng, k, names)
		kept := keptOwners(f, lane)
		f.step = func() {
			for p, key := range kept {
				if now, ok := f.owner(p); !ok || now != key {
					t.Errorf("lane %d: %s was taken from its peer on the way", i, p)
				}
			}
		}
		f.apply(mustDiff(t, lane, f.dev.Peers, situation{}))
		if err := reached(f, lane); err != nil {
			t.Fatalf("lane %d: %v", i, err)
		}
		s := situation{endpoints: map[keymgr.PublicKey]netip.AddrPort{}}
		if again := mustDiff(t, lane, f.dev.Peers, s); len(again) != 0 {
			t.Fatalf("lane %d: not idempotent:\n%s", i, k.text(again))
		}
	}
}

func keptOwners(f *fakeDevice, lane overlay.Tunnel) map[netip.Prefix]wgtypes.Key {
	kept := map[netip.Prefix]wgtypes.Key{}
	for _, p := range lane.Peers {
		for _, a := range p.AllowedIPs {
			if key, ok := f.owner(a); ok && key == wgtypes.Key(p.Key.Key()) {
				kept[a] = key
			}
		}
	}
	return kept
}

func reached(f *fakeDevice, lane overlay.Tunnel) error {
	if len(f.dev.Peers) != len(lane.Peers) {
		return fmt.Errorf("%d peers, want %d", len(f.dev.Peers), len(lane.Peers))
	}
	for _, want := range lane.Peers {
		i := slices.IndexFunc(f.dev.Peers, func(p wgtypes.Peer) bool { return p.PublicKey == wgtypes.Key(want.Key.Key()) })
		if i < 0 {
			return fmt.Errorf("no peer %s", want)
		}
		have := f.dev.Peers[i]
		got, planned := prefixes(have.AllowedIPs), slices.Clone(want.AllowedIPs)
		slices.SortFunc(got, netip.Prefix.Compare)
		slices.SortFunc(planned, netip.Prefix.Compare)
		if !slices.Equal(got, planned) {
			return fmt.Errorf("%s has %v", want, got)
		}
		if addrPort(have.Endpoint) != want.Endpoint || (have.PersistentKeepaliveInterval != 0) != want.Initiate {
			return fmt.Errorf("%s is at %s, keepalive %s", want, have.Endpoint, have.PersistentKeepaliveInterval)
		}
	}
	return nil
}

func TestPrefixConversion(t *testing.T) {
	for _, s := range []string{"10.0.0.0/8", "192.0.2.1/32", "0.0.0.0/0", "fd00::/48", "2001:db8::1/128", "::/0"} {
		want := netip.MustParsePrefix(s)
		if got := prefix(ipNet(want)); got != want {
			t.Errorf("%s came back as %s", want, got)
		}
		_, parsed, err := net.ParseCIDR(s)
		if err != nil {
			t.Fatal(err)
		}
		if got := prefix(*parsed); got != want {
			t.Errorf("%s was read as %s", want, got)
		}
	}
	if got := addrPort(&net.UDPAddr{IP: net.ParseIP("192.0.2.1"), Port: 5}); got != endpoint("192.0.2.1:5") {
		t.Errorf("endpoint = %s", got)
	}
	if got := addrPort(nil); got.IsValid() {
		t.Errorf("no endpoint = %s", got)
	}
}
