// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"net/netip"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
)

// holdings is what nodes hold, by the certificates in use and by their live Nodes.
type holdings struct {
	keys      map[[32]byte]keymgr.NodeID // by the hash of the public key
	addresses map[netip.Addr][]approval.Claim
	apiServer []netip.Addr
}

// claim assigns the key of an approved request to its node, so that the next
// request in the same pass cannot have it too.
func (h holdings) claim(order approval.Order) error {
	der, err := x509.MarshalPKIXPublicKey(order.PublicKey())
	if err != nil {
		return fmt.Errorf("encode public key of node %s: %w", order.Node(), err)
	}
	h.keys[sha256.Sum256(der)] = order.Node()
	return nil
}

// certificateCache keeps the verified content of certificates, so that each is
// verified once. Only certificates of our own CA count: anybody could publish a
// foreign one to block a key. The zero value is ready for use.
type certificateCache struct {
	bundle  string // the roots that the entries were verified with
	entries map[[32]byte]cacheEntry
}

// cacheEntry is the content of one chain. Of an invalid chain, only valid is set.
type cacheEntry struct {
	valid     bool
	key       [32]byte
	node      keymgr.NodeID
	until     time.Time
	addresses []netip.Addr
}

// validity says which certificates are valid.
type validity struct {
	bundle  []byte
	now     time.Time
	revoked keymgr.RevocationList
}

// read returns what nodes hold by the certificates that they have published or got
// recently, and the claims of their live Nodes on addresses. Nodes that are gone hold
// nothing: a machine that joins again under another UID may keep its key.
func (c *certificateCache) read(s cluster.Snapshot, requests []kube.Request, v validity) holdings {
	if c.bundle != string(v.bundle) {
		c.bundle, c.entries = string(v.bundle), nil
	}
	live := map[keymgr.NodeID]bool{}
	for _, node := range s.Nodes {
		live[node.ID()] = true
	}
	h, used := holdings{keys: map[[32]byte]keymgr.NodeID{}, apiServer: s.APIServer}, map[[32]byte]cacheEntry{}
	certified := map[certifiedAddress]bool{}
	for _, chain := range chains(s, requests) {
		id := sha256.Sum256(keymgr.EncodeChain(chain))
		e, known := c.entries[id]
		if !known {
			e = readEntry(chain, v)
		}
		used[id] = e
		if e.valid && live[e.node] && v.now.Before(e.until) {
			h.keys[e.key] = e.node
			for _, a := range e.addresses {
				certified[certifiedAddress{e.node, a}] = true
			}
		}
	}
	c.entries = used
	h.addresses = claims(s.Nodes, certified, v.revoked)
	return h
}

// certifiedAddress is an address that a valid certificate names as a node's.
type certifiedAddress struct {
	node keymgr.NodeID
	addr netip.Addr
}

// claims returns who claims each address. A node that is blocked claims nothing, and no
// node more than a certificate could name.
func claims(nodes []kube.Node, certified map[certifiedAddress]bool, revoked keymgr.RevocationList) map[netip.Addr][]approval.Claim {
	out := map[netip.Addr][]approval.Claim{}
	for _, n := range nodes {
		if entry, found := revoked.Node(n.UID); found && entry.Blocked {
			continue
		}
		for _, a := range n.FirstAddresses() {
			out[a] = append(out[a], approval.Claim{Node: n.Live(), Ready: n.Ready, Certified: certified[certifiedAddress{n.ID(), a}]})
		}
	}
	return out
}

func chains(s cluster.Snapshot, requests []kube.Request) [][][]byte {
	var out [][][]byte
	for _, signed := range s.NodeKeys {
		out = append(out, signed.Chain)
	}
	for _, r := range requests {
		if chain, err := keymgr.DecodeChain(r.Certificate); err == nil {
			out = append(out, chain)
		}
	}
	return out
}

func readEntry(chain [][]byte, v validity) cacheEntry {
	cert, err := keymgr.VerifyCertificate(chain, v.bundle, v.now)
	if err != nil {
		return cacheEntry{}
	}
	return cacheEntry{valid: true, key: cert.SPKI, node: cert.Node, until: cert.NotAfter, addresses: cert.Addresses}
}
