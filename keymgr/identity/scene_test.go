// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity_test

import (
	"slices"
	"testing"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
)

// scene is a verifier on node "self", and the nodes a and b about to publish.
type scene struct {
	*keytest.Cluster
	a, b     *keytest.Node
	verifier *keymgr.Verifier
}

func newScene(t *testing.T) *scene {
	t.Helper()
	c := keytest.NewCluster(t)
	return &scene{
		Cluster: c, a: c.Node("a", "10.244.1.0/24", "fd00:1::/64"), b: c.Node("b", "10.244.2.0/24"),
		verifier: c.Verifier("self"),
	}
}

func mustVerify(t *testing.T, v *keymgr.Verifier, s keymgr.Signed, live keymgr.LiveNode) keymgr.Peer {
	t.Helper()
	p, err := v.Verify(s, live)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	return p
}

func warned(p keymgr.Peer) bool {
	return slices.ContainsFunc(p.Warnings, func(w keymgr.Warning) bool { return w.Code == keymgr.WarnContinuity })
}

func keyHash(t *testing.T, n *keytest.Node) keymgr.Hash {
	t.Helper()
	hash, err := n.Identity.KeyHash()
	if err != nil {
		t.Fatal(err)
	}
	return hash
}
