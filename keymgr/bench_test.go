// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr_test

import (
	"fmt"
	"testing"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/markstore"
)

func BenchmarkVerify(b *testing.B) {
	c := keytest.NewCluster(b)
	n := c.Node("a", "10.244.1.0/24", "fd00:1::/64")
	v := c.Verifier("self")
	var next []keymgr.Signed
	for range 256 {
		next = append(next, n.Sign())
	}
	b.Run("new", func(b *testing.B) {
		for i := 0; b.Loop(); i++ {
			if i%len(next) == 0 {
				v = c.Verifier("self")
			}
			if _, err := v.Verify(next[i%len(next)], n.Live); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("again", func(b *testing.B) {
		for b.Loop() {
			if _, err := v.Verify(next[len(next)-1], n.Live); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("stored", func(b *testing.B) {
		cfg := c.VerifierConfig("self")
		for i := 0; b.Loop(); i++ {
			if i%len(next) == 0 {
				cfg.Marks = markstore.New(b.TempDir())
				v = c.Open(cfg)
			}
			if _, err := v.Verify(next[i%len(next)], n.Live); err != nil {
				b.Fatal(err)
			}
		}
	})
}

// Every node looks at the statements of all others whenever one has changed. It takes
// a while to make them; go test -benchtime=20x.
func BenchmarkVerifyAllAgain(b *testing.B) {
	c := keytest.NewCluster(b)
	v := c.Verifier("self")
	type entry struct {
		signed keymgr.Signed
		live   keymgr.LiveNode
	}
	var all []entry
	for i := range 5000 {
		n := c.Node(fmt.Sprintf("node%d", i), fmt.Sprintf("100.%d.%d.0/24", 64+i/256, i%256))
		e := entry{n.Sign(), n.Live}
		if _, err := v.Verify(e.signed, e.live); err != nil {
			b.Fatal(err)
		}
		all = append(all, e)
	}
	for b.Loop() {
		for _, e := range all {
			if _, err := v.Verify(e.signed, e.live); err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkSign(b *testing.B) {
	n := keytest.NewCluster(b).Node("a", "10.244.1.0/24")
	for b.Loop() {
		n.Sign()
	}
}
