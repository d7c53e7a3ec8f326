// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import (
	"crypto/sha256"
	"crypto/x509"
	"fmt"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
)

// keyOwners maps the hash of each public key to the node that holds the key.
type keyOwners map[[32]byte]keymgr.NodeID

// claim assigns the key of an approved request to its node, so that the next
// request in the same pass cannot have it too.
func (o keyOwners) claim(order approval.Order) error {
	der, err := x509.MarshalPKIXPublicKey(order.PublicKey())
	if err != nil {
		return fmt.Errorf("encode public key of node %s: %w", order.Node(), err)
	}
	o[sha256.Sum256(der)] = order.Node()
	return nil
}

// keyOwnerCache keeps the verified content of certificates, so that each is
// verified once. Only certificates of our own CA count: anybody could publish a
// foreign one to block a key. The zero value is ready for use.
type keyOwnerCache struct {
	bundle  string // the roots that the entries were verified with
	entries map[[32]byte]cacheEntry
}

// cacheEntry is the content of one chain. Of an invalid chain, only valid is set.
type cacheEntry struct {
	valid bool
	key   [32]byte
	node  keymgr.NodeID
	until time.Time
}

// validity says which certificates are valid.
type validity struct {
	bundle []byte
	now    time.Time
}

// read returns the owner of each key in the certificates that nodes have
// published or got recently. Nodes that are gone own nothing: a machine that
// joins again under another UID may keep its key.
func (c *keyOwnerCache) read(s cluster.Snapshot, requests []kube.Request, v validity) keyOwners {
	if c.bundle != string(v.bundle) {
		c.bundle, c.entries = string(v.bundle), nil
	}
	live := map[keymgr.NodeID]bool{}
	for _, node := range s.Nodes {
		live[node.ID()] = true
	}
	out, used := keyOwners{}, map[[32]byte]cacheEntry{}
	for _, chain := range chains(s, requests) {
		id := sha256.Sum256(keymgr.EncodeChain(chain))
		e, known := c.entries[id]
		if !known {
			e = readEntry(chain, v)
		}
		used[id] = e
		if e.valid && live[e.node] && v.now.Before(e.until) {
			out[e.key] = e.node
		}
	}
	c.entries = used
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
	return cacheEntry{valid: true, key: cert.SPKI, node: cert.Node, until: cert.NotAfter}
}
