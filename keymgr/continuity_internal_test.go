// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"testing"
)

func FuzzLinks(f *testing.F) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		f.Fatal(err)
	}
	node := NodeID{Name: "a", UID: "u"}
	link, err := SignLink(key, "td", node, [32]byte{1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(link.Key, link.Signature, link.Key, link.Signature)
	f.Add([]byte{}, []byte{}, []byte{1}, []byte{2})
	f.Fuzz(func(t *testing.T, k1, s1, k2, s2 []byte) {
		links := []Link{{k1, s1}, {k2, s2}}
		h := handover{trustDomain: "td", node: node, from: sha256.Sum256(k1), to: [32]byte{2}}
		if checkLinks(links) == nil && h.proven(links) == nil {
			t.Error("links prove a handover that nobody signed")
		}
	})
}
