// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"sigs.k8s.io/knftables"

	"github.com/sealane/sealane/overlay"
)

const (
	tableName = "sealane"
	chainName = "postrouting"
	// forwardName is the chain of what is refused on its way through the host.
	forwardName = "forward"
	// rewrite is how often the table is written although nothing changed, in case
	// somebody else flushed it.
	rewrite = time.Minute
)

// masquerade is what was written last, and when.
type masquerade struct {
	text string
	at   time.Time
}

func (h *Host) masquerade(ctx context.Context, m overlay.Masquerade) error {
	tx := transaction(h.nft, m)
	if tx.String() == h.masq.text && time.Since(h.masq.at) < rewrite {
		return nil
	}
	if err := h.links.Do(func() error { return h.nft.Run(ctx, tx) }); err != nil {
		return fmt.Errorf("write nftables table %s: %w", tableName, err)
	}
	h.masq = masquerade{text: tx.String(), at: time.Now()}
	return nil
}

// family holds the words in which the two address families differ.
type family struct {
	suffix, addr, match, multicast string
	is4                            bool
}

func families() []family {
	return []family{
		{suffix: "4", addr: "ipv4_addr", match: "ip", multicast: "224.0.0.0/4", is4: true},
		{suffix: "6", addr: "ipv6_addr", match: "ip6", multicast: "ff00::/8"},
	}
}

// transaction replaces the whole table at once.
func transaction(nft knftables.Interface, m overlay.Masquerade) *knftables.Transaction {
	tx := nft.NewTransaction()
	tx.Add(&knftables.Table{Comment: knftables.PtrTo("source addresses of what pods send out of the overlay, and into it")})
	tx.Add(&knftables.Chain{
		Name: chainName, Type: knftables.PtrTo(knftables.NATType), Hook: knftables.PtrTo(knftables.PostroutingHook),
		Priority: knftables.PtrTo(knftables.SNATPriority),
	})
	tx.Flush(&knftables.Chain{Name: chainName})
	tx.Add(&knftables.Chain{
		Name: forwardName, Type: knftables.PtrTo(knftables.FilterType), Hook: knftables.PtrTo(knftables.ForwardHook),
		Priority: knftables.PtrTo(knftables.FilterPriority),
	})
	tx.Flush(&knftables.Chain{Name: forwardName})
	// A segment outside of its connection's window is not translated, so that it
	// would reach the pod from an address that the pod never spoke to, and the
	// pod's RST would end a connection that is well.
	tx.Add(&knftables.Rule{
		Chain: forwardName, Comment: knftables.PtrTo("segments that cannot be translated"),
		Rule: fmt.Sprintf("meta l4proto tcp ct state invalid meta oifgroup %d drop", overlay.DeviceGroup),
	})
	for _, f := range families() {
		f.set(tx, "pods", m.Pods)
		f.set(tx, "cluster", m.Cluster)
		f.set(tx, "nodes", m.Nodes)
		f.rules(tx)
	}
	return tx
}

func (f family) set(tx *knftables.Transaction, name string, prefixes []netip.Prefix) {
	name += f.suffix
	tx.Add(&knftables.Set{Name: name, Type: f.addr, Flags: []knftables.SetFlag{knftables.IntervalFlag}})
	tx.Flush(&knftables.Set{Name: name})
	for _, p := range prefixes {
		if p.Addr().Is4() == f.is4 {
			tx.Add(&knftables.Element{Set: name, Key: []string{p.String()}})
		}
	}
}

// rules: what a pod sends to the outside takes the node's address; and so does
// whatever else enters a lane from an address that no peer would accept from
// this node (a NodePort's client, for one).
func (f family) rules(tx *knftables.Transaction) {
	word := func(format string) string {
		return strings.NewReplacer("$ip", f.match, "$f", f.suffix, "$multicast", f.multicast).Replace(format)
	}
	tx.Add(&knftables.Rule{
		Chain: chainName, Comment: knftables.PtrTo("pods to the outside"),
		Rule: word("$ip saddr @pods$f $ip daddr != @cluster$f $ip daddr != $multicast") +
			fmt.Sprintf(" meta oifgroup != %d masquerade fully-random", overlay.DeviceGroup),
	})
	tx.Add(&knftables.Rule{
		Chain: chainName, Comment: knftables.PtrTo("foreign sources into lanes"),
		Rule: fmt.Sprintf(`meta oifname "%s*" `, overlay.LanePrefix) + word("$ip saddr != @pods$f $ip saddr != @nodes$f masquerade fully-random"),
	})
}
