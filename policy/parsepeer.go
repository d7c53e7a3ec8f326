// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// peers: absent or empty means every peer; present but malformed means none.
func (p *parser) peers(namespace, field string, peers []networkingv1.NetworkPolicyPeer) []Peer {
	if len(peers) == 0 {
		return []Peer{{Kind: AnyPeer}}
	}
	var specs []Peer
	for i := range peers {
		if spec, ok := p.peer(namespace, fmt.Sprintf("%s[%d]", field, i), &peers[i]); ok {
			specs = append(specs, spec)
		}
	}
	return specs
}

func (p *parser) peer(namespace, field string, peer *networkingv1.NetworkPolicyPeer) (Peer, bool) {
	selects := peer.PodSelector != nil || peer.NamespaceSelector != nil
	switch {
	case selects && peer.IPBlock != nil:
		p.reject(field, "ipBlock and selectors", "write them as two peers")
		return Peer{}, false
	case peer.IPBlock != nil:
		return p.block(field+".ipBlock", peer.IPBlock)
	case selects:
		return p.selectedPods(namespace, field, peer)
	}
	p.reject(field, "empty", "write podSelector, namespaceSelector or ipBlock")
	return Peer{}, false
}

func (p *parser) selectedPods(namespace, field string, peer *networkingv1.NetworkPolicyPeer) (Peer, bool) {
	spec := Peer{Kind: SelectedPods, Pods: labels.Everything()}
	podKey := ""
	if peer.PodSelector != nil {
		if spec.Pods, podKey = p.selector(field+".podSelector", peer.PodSelector); spec.Pods == nil {
			return Peer{}, false
		}
	}
	if peer.NamespaceSelector == nil {
		spec.Namespace = namespace
		spec.Key = fmt.Sprintf("pods of %q labels(%s)", namespace, podKey)
		return spec, true
	}
	spec.Spaces, spec.SpaceKey = p.selector(field+".namespaceSelector", peer.NamespaceSelector)
	if spec.Spaces == nil {
		return Peer{}, false
	}
	if spec.Spaces.Empty() && spec.Pods.Empty() {
		return Peer{Kind: EveryPod}, true
	}
	spec.Key = fmt.Sprintf("pods of spaces(%s) labels(%s)", spec.SpaceKey, podKey)
	return spec, true
}

// block: one malformed except makes the whole block allow nothing, since the
// block without it would allow more than was meant.
func (p *parser) block(field string, b *networkingv1.IPBlock) (Peer, bool) {
	const remedy = "write ADDRESS/BITS, such as 10.0.0.0/8 or fd00::/8"
	cidr, err := parsePrefix(b.CIDR)
	if err != nil {
		p.reject(field+".cidr", b.CIDR, remedy)
		return Peer{}, false
	}
	spec := Peer{Kind: Block, CIDR: cidr}
	ok := true
	for i, text := range b.Except {
		except, err := parsePrefix(text)
		switch {
		case err != nil:
			p.reject(fmt.Sprintf("%s.except[%d]", field, i), text, remedy)
			ok = false
		case except.Bits() <= cidr.Bits() || !cidr.Contains(except.Addr()):
			p.reject(fmt.Sprintf("%s.except[%d]", field, i), text, "write a part of "+b.CIDR)
			ok = false
		default:
			spec.Except = append(spec.Except, except)
		}
	}
	spec.Except = widest(spec.Except)
	spec.Key = blockKey(cidr, spec.Except)
	return spec, ok
}

// widest leaves out what is within another, and sorts.
func widest(prefixes []netip.Prefix) []netip.Prefix {
	slices.SortFunc(prefixes, netip.Prefix.Compare)
	var kept []netip.Prefix
	for _, p := range prefixes {
		// What holds p sorts before it, and only the last one kept can.
		if n := len(kept); n == 0 || !kept[n-1].Contains(p.Addr()) {
			kept = append(kept, p)
		}
	}
	return kept
}

func blockKey(cidr netip.Prefix, except []netip.Prefix) string {
	var b strings.Builder
	b.WriteString("block " + cidr.String())
	for _, e := range except {
		b.WriteString(" not " + e.String())
	}
	return b.String()
}
