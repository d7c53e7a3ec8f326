// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package overlay

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/extension"
	"github.com/sealane/sealane/keymgr/nodenet"
	"github.com/sealane/sealane/keymgr/rotation"
)

// admission goes through the peers, those with keys first and the oldest of them first, and
// sorts out each one that contradicts this node or an earlier peer. keymgr refuses the same
// contradictions, and its memory lets the first claimant keep what it has; admission is the
// second line of defence.
type admission struct {
	cfg      Config
	admitted []Peer   // have a lane
	known    []Peer   // have none: refuse their addresses
	pods     disjoint // pod ranges of this node and of all peers that are not refused
	nodes    map[netip.Addr]keymgr.NodeID
	sites    []netip.Addr // the keys of nodes, sorted
	keys     map[keymgr.PublicKey]bool
	listed   map[keymgr.PublicKey]bool // by any peer
	names    map[string]bool
	refused  []Refusal
}

func admit(cfg Config, peers []Peer) *admission {
	a := &admission{
		cfg:   cfg,
		nodes: map[netip.Addr]keymgr.NodeID{}, keys: map[keymgr.PublicKey]bool{}, listed: map[keymgr.PublicKey]bool{},
		names: map[string]bool{cfg.Self.Name: true},
	}
	for _, p := range cfg.PodCIDRs {
		a.pods.add(p)
	}
	for _, own := range cfg.Addresses {
		a.own(own, cfg.Self)
	}
	for _, p := range peers {
		for _, k := range p.Keys {
			a.listed[k.Key()] = true
		}
	}
	for _, p := range sorted(peers, compareClaims) {
		a.add(p)
	}
	slices.SortFunc(a.admitted, func(x, y Peer) int { return compareIDs(x.ID, y.ID) })
	slices.SortFunc(a.known, func(x, y Peer) int { return compareIDs(x.ID, y.ID) })
	slices.SortStableFunc(a.refused, func(x, y Refusal) int { return compareIDs(x.ID, y.ID) })
	return a
}

// compareClaims orders peers by whose claims go first. A node that is not verified takes
// nothing from one that is; and an order of names would let a node win by its name.
func compareClaims(a, b Peer) int {
	unverified := func(p Peer) int {
		if len(p.Keys) > 0 {
			return 0
		}
		return 1
	}
	return cmp.Or(unverified(a)-unverified(b), a.Created.Compare(b.Created), cmp.Compare(a.ID.UID, b.ID.UID), cmp.Compare(a.ID.Name, b.ID.Name))
}

func compareIDs(a, b keymgr.NodeID) int {
	return cmp.Or(cmp.Compare(a.Name, b.Name), cmp.Compare(a.UID, b.UID))
}

func (a *admission) add(p Peer) {
	// The plan must not contain even an unreachable route for such a peer: its name or its
	// ranges belong to another node.
	if reason := a.identityFault(p); reason != "" {
		a.refuse(p.ID, reason)
		return
	}
	a.names[p.ID.Name] = true
	p = a.withdrawn(a.ownAddresses(p))
	switch reason := a.laneFault(p); {
	case !p.wantsLane(a.cfg.Kind):
		a.known = append(a.known, p)
	case reason != "":
		a.refuse(p.ID, reason)
		a.known = append(a.known, p)
	default:
		for _, k := range p.Keys {
			a.keys[k.Key()] = true
		}
		p.Keys = sorted(p.Keys, func(x, y keymgr.PeerKey) int { return cmp.Compare(x.Generation(), y.Generation()) })
		a.admitted = append(a.admitted, p)
	}
	for _, c := range p.PodCIDRs {
		a.pods.add(c)
	}
}

// withdrawn adds to p.Keys the keys that p has withdrawn, except those that another peer
// claims too. A peer that lists a key which another has given up therefore cannot get that
// other peer refused.
func (a *admission) withdrawn(p Peer) Peer {
	p.Keys, p.Pairs = slices.Clone(p.Keys), slices.Clone(p.Pairs)
	for _, k := range p.Withdrawn {
		if !a.listed[k.Key()] && !a.keys[k.Key()] {
			p.Keys = append(p.Keys, k)
			continue
		}
		reason := fmt.Sprintf("withdrawn key of generation %d is also a key of another node", k.Generation())
		a.refused = append(a.refused, Refusal{ID: p.ID, Reason: reason})
		p.Pairs = slices.DeleteFunc(p.Pairs, func(c rotation.WantedPair) bool { return c.Peer == k.Generation() })
	}
	return p
}

// own records addr as an address of the node id.
func (a *admission) own(addr netip.Addr, id keymgr.NodeID) {
	a.nodes[addr] = id
	i, _ := slices.BinarySearchFunc(a.sites, addr, netip.Addr.Compare)
	a.sites = slices.Insert(a.sites, i, addr)
}

func (p Peer) wantsLane(k Kind) bool {
	return k == WireGuard && len(p.Pairs) > 0 || k == VXLAN && p.Endpoint.IsValid()
}

func (a *admission) refuse(id keymgr.NodeID, reason string) {
	a.refused = append(a.refused, Refusal{ID: id, Whole: true, Reason: reason})
}

func (a *admission) identityFault(p Peer) string {
	if err := p.ID.Validate(); err != nil {
		return err.Error()
	}
	if a.names[p.ID.Name] {
		return "another node has the same name"
	}
	for i, c := range p.PodCIDRs {
		if err := checkPrefix(c); err != nil {
			return err.Error()
		}
		if o, ok := a.pods.overlapping(c); ok {
			return fmt.Sprintf("pod range %s overlaps %s of another node", c, o)
		}
		if o, ok := overlapping(p.PodCIDRs[:i], c); ok {
			return fmt.Sprintf("its pod ranges %s and %s overlap", o, c)
		}
		if within := slices.ContainsFunc(a.cfg.ClusterCIDRs, func(r netip.Prefix) bool { return nodenet.Within(c, r) }); !within && len(a.cfg.ClusterCIDRs) > 0 {
			return fmt.Sprintf("pod range %s is outside of the cluster's %s", c, a.cfg.ClusterCIDRs)
		}
		if o, ok := overlapping(a.cfg.Reserved, c); ok {
			return fmt.Sprintf("pod range %s overlaps %s of Services or the API server", c, o)
		}
		// A route to c would send the outer packets for that node into a lane.
		if addr, ok := a.firstNodeIn(c); ok {
			return fmt.Sprintf("pod range %s holds the address %s of node %s", c, addr, a.nodes[addr].Name)
		}
	}
	return ""
}

func (a *admission) firstNodeIn(c netip.Prefix) (netip.Addr, bool) {
	i, _ := slices.BinarySearchFunc(a.sites, c.Addr(), netip.Addr.Compare)
	if i < len(a.sites) && c.Contains(a.sites[i]) {
		return a.sites[i], true
	}
	return netip.Addr{}, false
}

// podRange returns the pod range that holds an address of peer p, if there is one.
func (a *admission) podRange(p Peer, addr netip.Addr) (netip.Prefix, bool) {
	for _, ranges := range [][]netip.Prefix{a.cfg.ClusterCIDRs, p.PodCIDRs} {
		if c, ok := containing(ranges, addr); ok {
			return c, true
		}
	}
	return a.pods.overlapping(host(addr))
}

func (a *admission) laneFault(p Peer) string {
	if err := checkUnicast(p.Endpoint); err != nil {
		return "endpoint " + err.Error()
	}
	if c, ok := a.podRange(p, p.Endpoint); ok {
		return fmt.Sprintf("endpoint %s lies in the pod range %s", p.Endpoint, c)
	}
	if a.cfg.Kind == VXLAN {
		return ""
	}
	for _, c := range p.Pairs {
		known := slices.ContainsFunc(p.Keys, func(k keymgr.PeerKey) bool { return k.Generation() == c.Peer })
		if !known || !slices.Contains(a.cfg.Generations, c.Own) {
			return fmt.Sprintf("no keys of generations %d and %d", c.Own, c.Peer)
		}
	}
	for i, k := range p.Keys {
		switch {
		case !k.Valid():
			return "key was not verified"
		case a.keys[k.Key()]:
			return "another node has the same key"
		case k.Ports()[0] == 0 || k.Ports()[1] == 0:
			return "key has no port"
		case slices.ContainsFunc(p.Keys[:i], func(o keymgr.PeerKey) bool {
			return keymgr.Parity(o.Generation()) == keymgr.Parity(k.Generation()) || o.Key() == k.Key()
		}):
			return "two of its keys want the same device"
		}
	}
	return ""
}

// ownAddresses keeps the addresses of p that no other node has. Two Node objects can share
// an address in good faith (a machine was re-installed under another name), so the peer
// keeps its lane.
func (a *admission) ownAddresses(p Peer) Peer {
	var kept []netip.Addr
	if more := len(p.Addresses) - extension.MaxAddresses; more > 0 {
		reason := fmt.Sprintf("it has %d addresses: the last %d are left out, a node has at most %d", len(p.Addresses), more, extension.MaxAddresses)
		a.refused = append(a.refused, Refusal{ID: p.ID, Reason: reason})
		p.Addresses = p.Addresses[:extension.MaxAddresses]
	}
	for _, addr := range sorted(p.Addresses, netip.Addr.Compare) {
		if slices.Contains(kept, addr) {
			continue
		}
		if reason := a.addressFault(p, addr); reason != "" {
			a.refused = append(a.refused, Refusal{ID: p.ID, Reason: reason})
			continue
		}
		a.own(addr, p.ID)
		kept = append(kept, addr)
	}
	p.Addresses = kept
	return p
}

func (a *admission) addressFault(p Peer, addr netip.Addr) string {
	if err := checkUnicast(addr); err != nil {
		return "address " + err.Error()
	}
	if owner, taken := a.nodes[addr]; taken {
		return fmt.Sprintf("address %s is also that of %s", addr, owner.Name)
	}
	if c, ok := a.podRange(p, addr); ok {
		return fmt.Sprintf("address %s lies in the pod range %s", addr, c)
	}
	return ""
}
