// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/extension"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay/overlaytest"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestAddressesOfOnePeer: a peer has the first eight, however many its kubelet reports, and
// the others have all of theirs.
func TestAddressesOfOnePeer(t *testing.T) {
	cfg := Config{
		Kind: VXLAN, AllowPlaintext: true, Self: keymgr.NodeID{Name: "self", UID: "1"}, UnderlayMTU: 1500,
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: prefixes("10.0.1.0/24"),
	}
	good := Peer{ID: keymgr.NodeID{Name: "good", UID: "2"}, Endpoint: netip.MustParseAddr("192.0.2.2"), PodCIDRs: prefixes("10.0.2.0/24")}
	good.Addresses = []netip.Addr{good.Endpoint}
	greedy := Peer{ID: keymgr.NodeID{Name: "greedy", UID: "3"}, Endpoint: netip.MustParseAddr("192.0.2.255"), PodCIDRs: prefixes("10.0.3.0/24")}
	greedy.Addresses = []netip.Addr{greedy.Endpoint}
	for a := netip.MustParseAddr("198.51.100.0"); len(greedy.Addresses) < 70_000; a = a.Next() {
		greedy.Addresses = append(greedy.Addresses, a)
	}
	for _, lane := range []bool{true, false} {
		if !lane {
			greedy.Endpoint = netip.Addr{} // known, and no more
		}
		plan, err := Compute(cfg, []Peer{greedy, good})
		if err != nil {
			t.Fatal(err)
		}
		if n := len(plan.Masquerade.Peers); n != extension.MaxAddresses+1 || !slices.Contains(plan.Masquerade.Peers, netip.MustParsePrefix("192.0.2.255/32")) {
			t.Errorf("lane %t: %d addresses of peers, want the first %d of one and one of the other", lane, n, extension.MaxAddresses)
		}
		if len(plan.Forward) > 20 || len(plan.Routes) > 40 {
			t.Errorf("lane %t: %d forwards, %d routes", lane, len(plan.Forward), len(plan.Routes))
		}
		if len(plan.Refused) != 1 || plan.Refused[0].Whole || !strings.Contains(plan.Refused[0].Reason, "it has 70000 addresses") {
			t.Errorf("lane %t: refused %v", lane, plan.Refused)
		}
	}
}

// A golden file holds a cluster as one node sees it, a line of three hyphens, and the
// expected plan or error. A line of the cluster is a word and its values; a peer line is a
// series of such pairs. Lines that begin with # are comments.
func TestComputeGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files (%v)", err)
	}
	ca := overlaytest.NewAuthority(t)
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			input, want, ok := strings.Cut(string(raw), "---\n")
			if !ok {
				t.Fatal("no --- between cluster and plan")
			}
			cfg, peers := parseCluster(t, ca, input)
			for i := range peers {
				combine(cfg, &peers[i])
			}
			plan, err := Compute(cfg, peers)
			got := plan.String()
			if err != nil {
				got = fmt.Sprintf("error: %v\n", err)
			}
			if *update {
				if err := os.WriteFile(file, []byte(input+"---\n"+got), 0o600); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := gocmp.Diff(want, got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func parseCluster(t *testing.T, ca *overlaytest.Authority, text string) (Config, []Peer) {
	t.Helper()
	var cfg Config
	var peers []Peer
	for line := range strings.Lines(text) {
		f := strings.Fields(line)
		if len(f) == 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if f[0] == "peer" {
			peers = append(peers, parsePeer(t, ca, f[1:]))
			continue
		}
		for _, value := range f[1:] {
			parseSetting(t, &cfg, f[0], value)
		}
	}
	return cfg, peers
}

func parseSetting(t *testing.T, cfg *Config, word, value string) {
	t.Helper()
	switch word {
	case "kind":
		cfg.Kind = Kind(value)
	case "plaintext":
		cfg.AllowPlaintext = value == "allowed"
	case "self":
		cfg.Self = parseID(value)
	case "generations":
		cfg.Generations = append(cfg.Generations, uint64(number(t, value)))
	case "address":
		cfg.Addresses = append(cfg.Addresses, netip.MustParseAddr(value))
	case "pods":
		cfg.PodCIDRs = append(cfg.PodCIDRs, netip.MustParsePrefix(value))
	case "cluster":
		cfg.ClusterCIDRs = append(cfg.ClusterCIDRs, netip.MustParsePrefix(value))
	case "reserved":
		cfg.Reserved = append(cfg.Reserved, netip.MustParsePrefix(value))
	case "underlay":
		cfg.UnderlayMTU = number(t, value)
	case "mtu":
		cfg.MTU = number(t, value)
	case "port":
		cfg.BasePort = uint16(number(t, value))
	default:
		t.Fatalf("unknown word %q", word)
	}
}

func parsePeer(t *testing.T, ca *overlaytest.Authority, f []string) Peer {
	t.Helper()
	p := Peer{ID: parseID(f[0])}
	var keys []overlaytest.Key
	for i := 1; i+1 < len(f); i += 2 {
		value := f[i+1]
		switch f[i] {
		case "endpoint":
			p.Endpoint = netip.MustParseAddr(value)
		case "address":
			p.Addresses = append(p.Addresses, netip.MustParseAddr(value))
		case "born": // seconds
			p.Created = time.Unix(int64(number(t, value)), 0)
		case "pods":
			p.PodCIDRs = append(p.PodCIDRs, netip.MustParsePrefix(value))
		case "key": // generation, or generation:owner for a key of another node
			gen, owner, _ := strings.Cut(value, ":")
			if owner == "" {
				owner = p.ID.Name
			}
			keys = append(keys, overlaytest.Key{
				ID: p.ID, Generation: uint64(number(t, gen)), BasePort: DefaultBasePort,
				Public: overlaytest.PublicKey(t, owner+gen),
			})
		case "unverified":
			p.Keys = append(p.Keys, keymgr.PeerKey{})
		case "active":
			p.Active = parseSlot(t, value)
		case "slot": // with words: preshared, initiate
			slot, words, _ := strings.Cut(value, ":")
			p.Pairs = append(p.Pairs, rotation.WantedPair{
				Pair: parseSlot(t, slot), Preshared: strings.Contains(words, "preshared"), Initiate: strings.Contains(words, "initiate"),
			})
		default:
			t.Fatalf("unknown word %q of a peer", f[i])
		}
	}
	if len(keys) > 0 {
		p.Keys = append(p.Keys, ca.Verify(t, keys...)...)
	}
	return p
}

func parseSlot(t *testing.T, s string) rotation.Pair {
	t.Helper()
	own, peer, _ := strings.Cut(s, ",")
	return rotation.Pair{Own: uint64(number(t, own)), Peer: uint64(number(t, peer))}
}

// combine gives every slot, oldest first, to a peer that names none; the node with the
// smaller UID initiates.
func combine(cfg Config, p *Peer) {
	if len(p.Pairs) > 0 {
		return
	}
	for _, own := range sorted(cfg.Generations, cmp.Compare) {
		for _, k := range p.Keys {
			p.Pairs = append(p.Pairs, rotation.WantedPair{
				Pair: rotation.Pair{Own: own, Peer: k.Generation()}, Initiate: cfg.Self.UID < p.ID.UID,
			})
		}
	}
}

func parseID(s string) keymgr.NodeID {
	name, uid, ok := strings.Cut(s, "/")
	if !ok {
		uid = "uid-" + name
	}
	return keymgr.NodeID{Name: name, UID: uid}
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.Atoi(s)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestComputeRefusesConfig(t *testing.T) {
	good := Config{
		Kind: WireGuard, Self: keymgr.NodeID{Name: "a", UID: "1"}, Generations: []uint64{1},
		Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: prefixes("10.0.0.0/24"),
		ClusterCIDRs: prefixes("10.0.0.0/16"), UnderlayMTU: 1500,
	}
	if _, err := Compute(good, nil); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		name   string
		change func(*Config)
		want   error
		words  string
	}{
		{"no kind", func(c *Config) { c.Kind = "" }, ErrConfig, "choose wireguard or vxlan"},
		{"vxlan unasked", func(c *Config) { c.Kind = VXLAN }, ErrPlaintext, "--insecure-plaintext"},
		{"no self", func(c *Config) { c.Self = keymgr.NodeID{} }, ErrConfig, "self"},
		{"no generation", func(c *Config) { c.Generations = nil }, ErrConfig, "key generations"},
		{"generations apart", func(c *Config) { c.Generations = []uint64{1, 3} }, ErrConfig, "consecutive"},
		{"three generations", func(c *Config) { c.Generations = []uint64{1, 2, 3} }, ErrConfig, "consecutive"},
		{"no address", func(c *Config) { c.Addresses = nil }, ErrConfig, "InternalIP"},
		{"zero address", func(c *Config) { c.Addresses = []netip.Addr{{}} }, ErrConfig, "not a global unicast"},
		{"loopback", func(c *Config) { c.Addresses[0] = netip.MustParseAddr("127.0.0.1") }, ErrConfig, "127.0.0.1"},
		{"link-local", func(c *Config) { c.Addresses[0] = netip.MustParseAddr("fe80::1") }, ErrConfig, "fe80::1"},
		{"address twice", func(c *Config) { c.Addresses = append(c.Addresses, c.Addresses[0]) }, ErrConfig, "twice"},
		{"address in pods", func(c *Config) { c.Addresses[0] = netip.MustParseAddr("10.0.9.1") }, ErrConfig, "10.0.0.0/16"},
		{"host bits", func(c *Config) { c.PodCIDRs[0] = netip.MustParsePrefix("10.0.0.1/24") }, ErrConfig, "host bits"},
		{"the whole internet", func(c *Config) { c.PodCIDRs[0] = netip.MustParsePrefix("0.0.0.0/1") }, ErrConfig, "0.0.0.0/1"},
		{"overlap", func(c *Config) { c.PodCIDRs = prefixes("10.0.0.0/24", "10.0.0.0/25") }, ErrConfig, "overlap"},
		{"cluster range", func(c *Config) { c.ClusterCIDRs = append(c.ClusterCIDRs, netip.Prefix{}) }, ErrConfig, "cluster"},
		{"port", func(c *Config) { c.BasePort = 65533 }, ErrConfig, "65532"},
		{"no underlay", func(c *Config) { c.UnderlayMTU = 0 }, ErrConfig, "underlay"},
		{"small underlay", func(c *Config) { c.UnderlayMTU = 600 }, ErrConfig, "600"},
		{"small for IPv6", func(c *Config) {
			c.UnderlayMTU, c.PodCIDRs = 1300, prefixes("10.0.0.0/24", "fd00::/64")
		}, ErrConfig, "1280"},
		{"mtu too large", func(c *Config) { c.MTU = 1500 }, ErrConfig, "576 to 1440"},
		{"mtu too small", func(c *Config) { c.MTU = 500 }, ErrConfig, "576 to 1440"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := good
			c.Addresses = append([]netip.Addr{}, good.Addresses...)
			c.PodCIDRs = append([]netip.Prefix{}, good.PodCIDRs...)
			tt.change(&c)
			plan, err := Compute(c, nil)
			if !errors.Is(err, tt.want) || err != nil && !strings.Contains(err.Error(), tt.words) {
				t.Errorf("error = %v; want %v with %q", err, tt.want, tt.words)
			}
			if !plan.Equal(Plan{}) {
				t.Errorf("a plan came with the error:\n%s", plan)
			}
		})
	}
}

func TestLaneMTU(t *testing.T) {
	for _, tt := range []struct {
		kind   Kind
		outer6 bool
		want   int
	}{{WireGuard, false, 1440}, {WireGuard, true, 1420}, {VXLAN, false, 1450}, {VXLAN, true, 1430}} {
		if got := TunnelMTU(tt.kind, 1500, tt.outer6); got != tt.want {
			t.Errorf("%s over IPv6 %v = %d, want %d", tt.kind, tt.outer6, got, tt.want)
		}
	}
}

func TestMinimal(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"", ""},
		{"10.0.0.0/24 10.0.0.0/24", "10.0.0.0/24"},
		{"10.0.1.0/24 10.0.0.0/16 10.1.0.0/24 fd00:1::/64 fd00::/16", "10.0.0.0/16 10.1.0.0/24 fd00::/16"},
		{"10.0.0.0/25 10.0.0.0/24 10.0.0.128/25", "10.0.0.0/24"},
	} {
		if diff := gocmp.Diff(fmt.Sprint(prefixes(strings.Fields(tt.want)...)), fmt.Sprint(minimal(prefixes(strings.Fields(tt.in)...)))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.in, diff)
		}
	}
}

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}
