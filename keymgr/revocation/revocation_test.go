// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package revocation_test

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/revocation"
)

const week = 7 * 24 * time.Hour

var (
	start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	n1    = keymgr.NodeID{Name: "n1", UID: "u1"}
	n2    = keymgr.NodeID{Name: "n2", UID: "u2"}
)

// cluster is what the controller sees, and the list that it keeps.
type cluster struct {
	t     *testing.T
	facts revocation.Facts
	list  keymgr.RevocationList
}

func newCluster(t *testing.T, live ...keymgr.NodeID) *cluster {
	c := &cluster{t: t, facts: revocation.Facts{Now: start, TrustDomain: "td", Lifetime: week, Live: map[string]bool{}}}
	for _, id := range live {
		c.facts.Live[id.UID] = true
	}
	return c
}

func (c *cluster) certify(id keymgr.NodeID, n byte) {
	c.facts.Certificates = append(c.facts.Certificates, keymgr.NodeCertificate{
		Node: id, CertificateInfo: keymgr.CertificateInfo{Serial: fmt.Sprint(n), Issuer: "CN=i", SPKI: [32]byte{n}, NotAfter: c.facts.Now.Add(week)},
	})
}

func (c *cluster) order(id keymgr.NodeID, reason keymgr.RevocationReason) {
	c.facts.Orders = append(c.facts.Orders, revocation.Order{Node: id, Reason: reason})
}

func (c *cluster) next() revocation.News {
	c.t.Helper()
	list, news, err := revocation.Next(c.list, c.facts)
	if err != nil {
		c.t.Fatal(err)
	}
	if news.Changed != (list.Number != c.list.Number) || list.Number < c.list.Number {
		c.t.Fatalf("list %d follows %d, changed %t", list.Number, c.list.Number, news.Changed)
	}
	payload, err := list.Encode()
	if err != nil {
		c.t.Fatal(err)
	}
	if c.list, err = keymgr.ParseRevocations(payload); err != nil {
		c.t.Fatalf("no reader takes %s: %v", payload, err)
	}
	// Nothing happens: nothing changes, also for a controller that starts now.
	if again, news, err := revocation.Next(c.list, c.facts); err != nil || news.Changed || again.Number != c.list.Number {
		c.t.Fatalf("not at rest: %+v, %v", news, err)
	}
	return news
}

func (c *cluster) entry(id keymgr.NodeID) keymgr.RevokedNode {
	c.t.Helper()
	e, ok := c.list.Node(id.UID)
	if !ok {
		c.t.Fatalf("the list has no %s: %+v", id, c.list)
	}
	return e
}

func TestLifeOfAnOrder(t *testing.T) {
	c := newCluster(t, n1, n2)
	if news := c.next(); !news.Changed || len(c.list.Nodes) != 0 || c.list.Number != uint64(start.UnixMilli()) {
		t.Fatalf("the first list is %+v", c.list)
	}
	c.certify(n1, 1)
	c.certify(n2, 2)
	c.order(n1, keymgr.ReasonKeyCompromise)
	news := c.next()
	want := keymgr.RevokedNode{
		Name: "n1", UID: "u1", Reason: keymgr.ReasonKeyCompromise, At: start, Blocked: true, Before: start.Add(-6 * time.Minute),
		Keys: []keymgr.Hash{{1}}, Serials: []keymgr.CertificateSerial{{Issuer: "CN=i", Serial: "1"}},
		Expires: start.Add(2*week + 2*keymgr.ClockSkew),
	}
	if diff := cmp.Diff([]keymgr.RevokedNode{want}, c.list.Nodes); diff != "" {
		t.Errorf("list (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]keymgr.NodeID{n1}, news.Revoked); diff != "" {
		t.Errorf("news (-want +got):\n%s", diff)
	}

	c.facts.Now = c.facts.Now.Add(time.Hour)
	c.certify(n1, 3) // one that comes into sight late
	if news := c.next(); len(news.Revoked) != 0 || len(c.entry(n1).Keys) != 2 || !c.entry(n1).At.Equal(start) {
		t.Errorf("news %+v, entry %+v", news, c.entry(n1))
	}

	c.facts.Now = c.facts.Now.Add(time.Hour)
	c.facts.Orders = nil
	c.certify(n1, 4) // seen in the very pass that readmits
	news = c.next()
	if e := c.entry(n1); e.Blocked || len(e.Keys) != 3 || !slices.Equal(news.Readmitted, []keymgr.NodeID{n1}) {
		t.Errorf("readmitted: news %+v, entry %+v", news, e)
	}
	c.certify(n1, 5) // its new key
	if news := c.next(); news.Changed {
		t.Errorf("the new key of a readmitted node is revoked: %+v", c.entry(n1))
	}

	c.facts.Now = c.entry(n1).Expires.Add(time.Second)
	if c.next(); len(c.list.Nodes) != 0 {
		t.Errorf("never dropped: %+v", c.list.Nodes)
	}
}

func TestAnOrderNeverExpires(t *testing.T) {
	c := newCluster(t, n1)
	c.order(n1, keymgr.ReasonSuperseded)
	c.next()
	c.facts.Now = start.Add(1000 * week)
	c.facts.Live = nil // nor does it end with the node
	if c.next(); !c.entry(n1).Blocked {
		t.Error("a node under order is not blocked")
	}
	c.facts.Orders = nil
	if c.next(); len(c.list.Nodes) != 0 {
		t.Error("a node that is gone and whose certificates have ended is still listed")
	}
}

func TestSecondOrder(t *testing.T) {
	c := newCluster(t, n1)
	c.certify(n1, 1)
	c.order(n1, keymgr.ReasonUnspecified)
	c.next()
	c.facts.Orders = nil
	c.next()
	c.facts.Now = start.Add(time.Hour)
	c.facts.Certificates = nil
	c.certify(n1, 2)
	c.order(n1, keymgr.ReasonKeyCompromise)
	c.order(n1, keymgr.ReasonSuperseded) // a second object for the same node
	news := c.next()
	e := c.entry(n1)
	if !e.Blocked || len(e.Keys) != 2 || !e.At.Equal(c.facts.Now) || e.Reason != keymgr.ReasonKeyCompromise || len(news.Revoked) != 1 {
		t.Errorf("news %+v, entry %+v", news, e)
	}
}

// TestOrdersRemember: the list was deleted by somebody; what the orders report
// brings back what cannot be seen any more.
func TestOrdersRemember(t *testing.T) {
	c := newCluster(t, n1)
	c.facts.Orders = []revocation.Order{{Node: n1, Reason: keymgr.ReasonUnspecified, Keys: []keymgr.Hash{{9}}}}
	if c.next(); !slices.Equal(c.entry(n1).Keys, []keymgr.Hash{{9}}) {
		t.Errorf("entry %+v", c.entry(n1))
	}
}

func TestNodeThatIsGone(t *testing.T) {
	c := newCluster(t, n2)
	c.certify(n1, 1)
	c.facts.Gone = []keymgr.NodeID{n1}
	news := c.next()
	e := c.entry(n1)
	if !e.Blocked || e.Reason != keymgr.ReasonCessationOfOperation || len(e.Keys) != 1 || !slices.Equal(news.Revoked, []keymgr.NodeID{n1}) {
		t.Errorf("news %+v, entry %+v", news, e)
	}
	c.facts.Gone, c.facts.Certificates = nil, nil // the NodeKey was collected
	if news := c.next(); news.Changed {
		t.Errorf("changed without cause: %+v", news)
	}
	c.facts.Now = start.Add(week + keymgr.ClockSkew + time.Second)
	if c.next(); len(c.list.Nodes) != 0 {
		t.Errorf("never dropped: %+v", c.list.Nodes)
	}
}

func TestNumberGrowsWhateverTheClock(t *testing.T) {
	c := newCluster(t, n1)
	c.next()
	before := c.list.Number
	c.facts.Now = start.Add(-keymgr.ClockSkew / 2)
	c.order(n1, keymgr.ReasonUnspecified)
	if c.next(); c.list.Number != before+1 {
		t.Errorf("%d after %d", c.list.Number, before)
	}
	// From the future, readers refuse it: it begins again, though nothing else is new.
	c.facts.Now = start.Add(-week)
	list, news, err := revocation.Next(c.list, c.facts)
	if err != nil || !news.Changed || list.Number != uint64(c.facts.Now.UnixMilli()) || len(list.Nodes) != 1 {
		t.Errorf("%+v after %d, %v", list, before, err)
	}
}

func TestFullListLeavesOutTheGoneFirst(t *testing.T) {
	c := newCluster(t)
	c.order(n1, keymgr.ReasonKeyCompromise)
	const many = 3000
	for i := range many {
		c.list.Nodes = append(c.list.Nodes, keymgr.RevokedNode{
			Name: "gone", UID: fmt.Sprintf("gone-%04d-%s", i, strings.Repeat("x", 30)), Reason: keymgr.ReasonCessationOfOperation,
			Blocked: true, Keys: []keymgr.Hash{{1}}, Expires: start.Add(time.Duration(many-i) * time.Minute),
		})
	}
	c.list.Number = 1
	news := c.next()
	kept := len(c.list.Nodes)
	if !c.entry(n1).Blocked || kept < many/3 || len(news.Crowded) != many+1-kept {
		t.Errorf("kept %d, left out %d", kept, len(news.Crowded))
	}
	if _, ok := c.list.Node(news.Crowded[0].UID); ok || news.Crowded[0].UID[:9] != "gone-2999" {
		t.Errorf("left out first: %v, want the one that expires first", news.Crowded[0])
	}
	for i := range many {
		c.order(keymgr.NodeID{Name: "ordered", UID: fmt.Sprintf("o-%d-%s", i, strings.Repeat("x", 50))}, keymgr.ReasonUnspecified)
	}
	if _, _, err := revocation.Next(c.list, c.facts); !errors.Is(err, keymgr.ErrTooLarge) {
		t.Errorf("more orders than fit: %v", err)
	}
}

func TestKeysOfOneNodeAreBounded(t *testing.T) {
	c := newCluster(t, n1)
	c.order(n1, keymgr.ReasonUnspecified)
	for i := range 2 * keymgr.MaxRevokedKeys {
		c.certify(n1, byte(i))
	}
	c.next()
	e := c.entry(n1)
	if last := byte(2*keymgr.MaxRevokedKeys - 1); len(e.Keys) != keymgr.MaxRevokedKeys || e.Keys[len(e.Keys)-1] != (keymgr.Hash{last}) {
		t.Errorf("%d keys, last %v", len(e.Keys), e.Keys[len(e.Keys)-1])
	}
}

// TestRandomLives compares with what must hold at any time: a node is blocked as
// long as there is an order for it, and no key that was blocked with it comes back
// before the entry expires.
func TestRandomLives(t *testing.T) {
	for seed := range uint64(40) {
		r := rand.New(rand.NewPCG(seed, 0))
		c := newCluster(t, n1, n2)
		condemned := map[keymgr.Hash]time.Time{}
		for step := range 60 {
			c.facts.Now = c.facts.Now.Add(time.Duration(r.IntN(48)) * time.Hour)
			id := []keymgr.NodeID{n1, n2}[r.IntN(2)]
			switch r.IntN(4) {
			case 0:
				c.order(id, keymgr.ReasonUnspecified)
			case 1:
				c.facts.Orders = slices.DeleteFunc(c.facts.Orders, func(o revocation.Order) bool { return o.Node == id })
			case 2:
				if e, ok := c.list.Node(id.UID); !ok || !e.Blocked { // the signer denies the blocked
					c.certify(id, byte(step))
				}
			case 3:
				c.facts.Certificates = slices.DeleteFunc(c.facts.Certificates, func(n keymgr.NodeCertificate) bool {
					return n.Node == id && n.NotAfter.Before(c.facts.Now)
				})
			}
			c.next()
			for _, o := range c.facts.Orders {
				if !c.entry(o.Node).Blocked {
					t.Fatalf("seed %d step %d: %s is under order and not blocked", seed, step, o.Node)
				}
			}
			for _, n := range c.facts.Certificates {
				if e, ok := c.list.Node(n.Node.UID); ok && e.Blocked && c.facts.Now.Before(n.NotAfter) {
					condemned[n.SPKI] = n.NotAfter
				}
			}
			for key, end := range condemned {
				listed := slices.ContainsFunc(c.list.Nodes, func(n keymgr.RevokedNode) bool { return slices.Contains(n.Keys, key) })
				if !listed && c.facts.Now.Before(end) {
					t.Fatalf("seed %d step %d: key %x came back", seed, step, key[0])
				}
			}
		}
	}
}
