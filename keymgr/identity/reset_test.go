// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity_test

import (
	"path/filepath"
	"testing"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/keytest"
)

func TestReset(t *testing.T) {
	c := keytest.NewCluster(t)
	dir := t.TempDir()
	n := &keytest.Node{Live: keymgr.LiveNode{ID: keytest.ID("a")}}
	open := func() { n.Identity = c.Identity(n.Live.ID, dir) }
	open()
	keys := n.Identity.WGKeys()
	for range 2 {
		if _, err := keys.Create(); err != nil {
			t.Fatal(err)
		}
	}
	c.Certify(n)
	sign := func() keymgr.Statement {
		t.Helper()
		signed, err := n.Identity.Sign(identity.StatementInput{Keys: n.Identity.WGKeys().All(), BasePort: 51871})
		if err != nil {
			t.Fatal(err)
		}
		st, err := keymgr.ParseStatement(signed.Payload)
		if err != nil {
			t.Fatal(err)
		}
		return st
	}
	before, hash := sign(), keyHash(t, n)
	if err := n.Identity.Reset(); err != nil {
		t.Fatal(err)
	}
	for _, restarted := range []bool{false, true} {
		if restarted {
			open()
		}
		if keyHash(t, n) == hash {
			t.Error("the node key is the old one")
		}
		if _, ok := n.Identity.Certificate(); ok || n.Identity.NeedsCertificate(nil) != identity.NeedFirst {
			t.Error("the old certificate is still there")
		}
		all := n.Identity.WGKeys().All()
		if len(all) != 1 || all[0].Generation != before.Keys[1].Generation+1 {
			t.Errorf("generations %v, want the one after %d alone", all, before.Keys[1].Generation)
		}
	}
	c.Certify(n)
	if after := sign(); after.Seq <= before.Seq || after.PrevSeq != before.Seq {
		t.Errorf("sequence %d after %d", after.Seq, before.Seq)
	}
	if files, err := filepath.Glob(filepath.Join(dir, "wg-*.key")); len(files) != 1 || err != nil {
		t.Errorf("key files %v, %v; want one", files, err)
	}
}
