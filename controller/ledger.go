// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"crypto/sha256"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

// ledger knows which node's certificate holds which key. Only certificates of
// our own authority count: anybody could publish a foreign one to block a key.
type ledger struct {
	bundle  string // that the entries were verified with
	entries map[[32]byte]entry
}

// entry is what a chain says, or that it says nothing.
type entry struct {
	valid bool
	key   [32]byte
	node  keymgr.NodeID
	until time.Time
}

// owners returns the owner of each key in the certificates that nodes have
// published or were issued lately. Nodes that are gone own nothing: a machine
// that joins anew under another UID may keep its key.
func (l *ledger) owners(s kube.Snapshot, requests []kube.Request, c circumstances) owners {
	if l.bundle != string(c.bundle) {
		l.bundle, l.entries = string(c.bundle), nil
	}
	live := map[keymgr.NodeID]bool{}
	for _, node := range s.Nodes {
		live[keymgr.NodeID{Name: node.Name, UID: node.UID}] = true
	}
	out, used := owners{}, map[[32]byte]entry{}
	for _, chain := range chains(s, requests) {
		id := sha256.Sum256(keymgr.EncodeChain(chain))
		e, known := l.entries[id]
		if !known {
			e = readEntry(chain, c)
		}
		used[id] = e
		if e.valid && live[e.node] && c.now.Before(e.until) {
			out[e.key] = e.node
		}
	}
	l.entries = used
	return out
}

// circumstances are what certificates are judged by.
type circumstances struct {
	bundle []byte
	now    time.Time
}

func chains(s kube.Snapshot, requests []kube.Request) [][][]byte {
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

func readEntry(chain [][]byte, c circumstances) entry {
	cert, err := keymgr.VerifyCertificate(chain, c.bundle, c.now)
	if err != nil {
		return entry{}
	}
	return entry{valid: true, key: cert.SPKI, node: cert.Node, until: cert.NotAfter}
}
