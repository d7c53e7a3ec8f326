// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package plan decides what a cluster consists of: addresses, command lines, configurations. It touches nothing.
package plan

import (
	"fmt"
	"net/netip"
	"regexp"
	"slices"
	"strings"
)

// MaxNodes is how many nodes "up" starts at most; "add-node" may add more.
const MaxNodes = 5

// Addresses of the lab. They exist only in its own network namespaces, so that every lab may have the same.
const (
	wire4, wire6     = "172.30.0.0/24", "fd00:30::/64"
	pods4, pods6     = "10.244.0.0/16", "fd00:244::/56"
	services4        = "10.96.0.0/16"
	services6        = "fd00:96::/112"
	wireHost         = 254 // the wire's own address
	firstNode        = 10  // address of node 0, which there is not
	apiHost, dnsHost = 1, 10
	minMTU           = 1280
)

// Families are the IP families of the cluster, the first one preferred.
type Families string

// The families that a cluster can have.
const (
	IPv4 Families = "ipv4"
	IPv6 Families = "ipv6"
	Dual Families = "dual"
)

// Options are what the user chooses of a cluster.
type Options struct {
	Nodes    int
	Families Families
	Proxy    string // kube-proxy's mode, or "none"
	CNI      string // "none" or "flannel"
	MTU      int    // of the nodes' eth0
}

// Node is one node of a cluster.
type Node struct {
	Name  string
	Index int // from 1; gives its addresses
}

// Control reports whether the node carries the control plane.
func (n Node) Control() bool { return n.Index == 1 }

// NextIndex returns the lowest index that none of nodes has, and whether there is an address for it.
func NextIndex(nodes []Node) (int, bool) {
	index := 1
	for slices.ContainsFunc(nodes, func(n Node) bool { return n.Index == index }) {
		index++
	}
	return index, firstNode+index < wireHost
}

// Validate checks every option.
func (o Options) Validate() error {
	switch {
	case o.Nodes < 1 || o.Nodes > MaxNodes:
		return fmt.Errorf("%w: %d nodes: want 1 to %d", ErrOption, o.Nodes, MaxNodes)
	case !slices.Contains([]Families{IPv4, IPv6, Dual}, o.Families):
		return fmt.Errorf("%w: families %q", ErrOption, o.Families)
	case !slices.Contains([]string{"nftables", "iptables", "none"}, o.Proxy):
		return fmt.Errorf("%w: --proxy=%s: want nftables, iptables or none", ErrOption, o.Proxy)
	case !slices.Contains([]string{"none", "flannel"}, o.CNI):
		return fmt.Errorf("%w: --cni=%s: want none or flannel", ErrOption, o.CNI)
	case o.MTU < minMTU || o.MTU > 65535:
		return fmt.Errorf("%w: --mtu=%d: want %d to 65535", ErrOption, o.MTU, minMTU)
	}
	return nil
}

// CheckName refuses names that cannot be a node and a network device at once.
func CheckName(name string) error {
	if !regexp.MustCompile(`^[a-z]([a-z0-9-]{0,13}[a-z0-9])?$`).MatchString(name) || name == Bridge || name == "lo" || name == WireName {
		return fmt.Errorf("%w: node name %q: want up to 15 lower-case letters, digits and dashes", ErrOption, name)
	}
	return nil
}

// pick returns those of a pair of prefixes whose family the cluster has.
func (f Families) pick(four, six string) []netip.Prefix {
	var out []netip.Prefix
	if f != IPv6 {
		out = append(out, netip.MustParsePrefix(four))
	}
	if f != IPv4 {
		out = append(out, netip.MustParsePrefix(six))
	}
	return out
}

// Wire returns the prefixes of the network between the nodes.
func (f Families) Wire() []netip.Prefix { return f.pick(wire4, wire6) }

// Pods returns the cluster's pod ranges.
func (f Families) Pods() []netip.Prefix { return f.pick(pods4, pods6) }

// Services returns the cluster's service ranges.
func (f Families) Services() []netip.Prefix { return f.pick(services4, services6) }

// host returns the address number n of every prefix. In IPv6 the digits of n are
// taken as they are, so that node 1 ends in 11 in both families.
func host(in []netip.Prefix, n int) []netip.Addr {
	out := make([]netip.Addr, len(in))
	for i, p := range in {
		bytes := p.Addr().AsSlice()
		last := len(bytes) - 1
		if p.Addr().Is4() {
			bytes[last] += byte(n)
		} else {
			bytes[last-1], bytes[last] = byte(n/100), byte(n/10%10<<4|n%10)
		}
		out[i], _ = netip.AddrFromSlice(bytes)
	}
	return out
}

// NodeAddresses returns the addresses of the node with the given index, from 1.
func (f Families) NodeAddresses(index int) []netip.Addr { return host(f.Wire(), firstNode+index) }

func (f Families) dns() netip.Addr { return host(f.Services(), dnsHost)[0] }

// anyAddress is what a server listens on to be reached by every family.
func (f Families) anyAddress() string {
	if f == IPv4 {
		return "0.0.0.0"
	}
	return "::"
}

// Join separates the texts of items by commas.
func Join[T fmt.Stringer](items []T) string {
	text := make([]string, len(items))
	for i, item := range items {
		text[i] = item.String()
	}
	return strings.Join(text, ",")
}
