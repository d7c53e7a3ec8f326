// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Rule is a policy-routing rule; it is comparable. From or To must be set, and both must be
// of one family; 0.0.0.0/0 or ::/0 means "all" of a family.
type Rule struct {
	Priority int
	From, To netip.Prefix
	// Mark selects packets whose mark equals Mark in the bits of Mask. Mask 0 selects all
	// packets.
	Mark, Mask uint32
	Table      int
}

// String returns the rule in the style of ip-rule(8).
func (r Rule) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d:", r.Priority)
	for _, part := range []struct {
		word string
		p    netip.Prefix
	}{{"from", r.From}, {"to", r.To}} {
		if part.p.IsValid() {
			fmt.Fprintf(&b, " %s %s", part.word, part.p)
		}
	}
	if r.Mask != 0 {
		fmt.Fprintf(&b, " fwmark %#x/%#x", r.Mark, r.Mask)
	}
	fmt.Fprintf(&b, " lookup %d", r.Table)
	return b.String()
}

// Rules returns the rules of one priority, IPv4 before IPv6, sorted. A rule
// without addresses reads as From "all" of its family.
func (h *Handle) Rules(priority int) ([]Rule, error) {
	var out []Rule
	filter := &netlink.Rule{Priority: priority}
	for _, fam := range []int{unix.AF_INET, unix.AF_INET6} {
		raw, err := dump(func() ([]netlink.Rule, error) { return h.h.RuleListFiltered(fam, filter, netlink.RT_FILTER_PRIORITY) })
		if err != nil {
			return nil, kernelError(err, "list rules")
		}
		for _, r := range raw {
			out = append(out, toRule(r))
		}
	}
	slices.SortFunc(out, func(a, b Rule) int {
		if c := a.From.Compare(b.From); c != 0 {
			return c
		}
		return strings.Compare(a.String(), b.String())
	})
	return out, nil
}

func toRule(r netlink.Rule) Rule {
	out := Rule{Priority: r.Priority, From: toPrefix(r.Src), To: toPrefix(r.Dst), Mark: r.Mark, Table: r.Table}
	if r.Mask != nil {
		out.Mask = *r.Mask
	}
	if !out.From.IsValid() && !out.To.IsValid() {
		out.From = netip.PrefixFrom(netip.IPv4Unspecified(), 0)
		if r.Family == unix.AF_INET6 {
			out.From = netip.PrefixFrom(netip.IPv6Unspecified(), 0)
		}
	}
	return out
}

// AddRule adds the rule; an existing one is no error.
func (h *Handle) AddRule(r Rule) error {
	raw, err := toNetlinkRule(r)
	if err != nil {
		return err
	}
	err = kernelError(h.h.RuleAdd(raw), "add rule %s", r)
	if errors.Is(err, ErrExists) {
		return nil
	}
	return err
}

// DeleteRule removes the rule; a missing one is no error.
func (h *Handle) DeleteRule(r Rule) error {
	raw, err := toNetlinkRule(r)
	if err != nil {
		return err
	}
	err = kernelError(h.h.RuleDel(raw), "delete rule %s", r)
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func toNetlinkRule(r Rule) (*netlink.Rule, error) {
	out := netlink.NewRule()
	out.Priority, out.Table = r.Priority, r.Table
	if r.Mask != 0 {
		out.Mark, out.Mask = r.Mark, &r.Mask
	}
	for _, p := range []netip.Prefix{r.From, r.To} {
		if p.IsValid() {
			out.Family = family(p.Addr())
		}
	}
	if out.Family == 0 {
		return nil, fmt.Errorf("rule %s: %w: neither from nor to is set", r, ErrInvalid)
	}
	if r.Mark&^r.Mask != 0 {
		return nil, fmt.Errorf("rule %s: %w: mark %#x has bits outside of mask %#x", r, ErrInvalid, r.Mark, r.Mask)
	}
	if r.From.IsValid() && r.To.IsValid() && r.From.Addr().Is4() != r.To.Addr().Is4() {
		return nil, fmt.Errorf("rule %s: %w: from and to are of different families", r, ErrInvalid)
	}
	if r.From.IsValid() && r.From.Bits() > 0 {
		out.Src = toIPNet(r.From)
	}
	if r.To.IsValid() && r.To.Bits() > 0 {
		out.Dst = toIPNet(r.To)
	}
	return out, nil
}
