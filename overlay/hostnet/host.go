// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"

	"sigs.k8s.io/knftables"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
)

// links is what this package needs of the netlink door.
type links interface {
	LinkByName(name string) (nl.Link, error)
	Links() ([]nl.Link, error)
	Routes(nl.RouteFilter) ([]nl.Route, error)
	ReplaceRoute(nl.Route) error
	DeleteRoute(nl.Route) error
	Rules(priority int) ([]nl.Rule, error)
	AddRule(nl.Rule) error
	DeleteRule(nl.Rule) error
	Sysctl(name string) (string, error)
	SetSysctl(name, value string) (bool, error)
}

// Host is the host's network outside of the lanes. Its methods are to be called
// by one goroutine.
type Host struct {
	links links
	nft   knftables.Interface
	log   *slog.Logger
	masq  masquerade
}

// New opens the host's nftables; it fails where there are none.
func New(l *nl.Handle, log *slog.Logger) (*Host, error) {
	nft, err := knftables.New(knftables.InetFamily, tableName)
	if err != nil {
		return nil, fmt.Errorf("open nftables: %w", err)
	}
	return &Host{links: l, nft: nft, log: log}, nil
}

// Apply makes routes, rules, masquerade and settings as planned. The lanes of
// the plan must exist. It is idempotent: what is right is left alone, and what
// somebody else has changed is put right.
func (h *Host) Apply(ctx context.Context, p overlay.Plan) error {
	if err := h.enableForwarding(p.Masquerade.Pods); err != nil {
		return err
	}
	// Refusals and masquerade before the routes that packets could take.
	if err := h.masquerade(ctx, p.Masquerade); err != nil {
		return err
	}
	if err := h.applyRoutes(p.Routes); err != nil {
		return err
	}
	return h.applyRules(p.Rules)
}

// Clean removes every route, rule and nftables object of this package. Kernel
// settings stay: others may rely on them by now.
func (h *Host) Clean(ctx context.Context) error {
	h.masq = masquerade{}
	tx := h.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // deleting what is not there is an error
	tx.Delete(&knftables.Table{})
	err := h.nft.Run(ctx, tx)
	if err != nil {
		err = fmt.Errorf("remove nftables table %s: %w", tableName, err)
	}
	return errors.Join(err, h.applyRules(nil), h.applyRoutes(nil))
}

// enableForwarding lets the node forward the families that its pods have.
func (h *Host) enableForwarding(pods []netip.Prefix) error {
	for _, p := range pods {
		name := "net/ipv6/conf/all/forwarding"
		if p.Addr().Is4() {
			name = "net/ipv4/ip_forward"
		} else if err := h.keepRouterAdvertisements(name); err != nil {
			return err
		}
		changed, err := h.links.SetSysctl(name, "1")
		if err != nil {
			return fmt.Errorf("enable forwarding: %w", err)
		}
		if changed {
			h.log.Info("forwarding enabled", "setting", name)
		}
	}
	return nil
}

// keepRouterAdvertisements: a node that forwards stops listening to routers
// where accept_ra is 1, and would lose its own default route; 2 goes on.
func (h *Host) keepRouterAdvertisements(forwarding string) error {
	if on, err := h.links.Sysctl(forwarding); err != nil || on == "1" {
		return err
	}
	all, err := h.links.Links()
	if err != nil {
		return err
	}
	for _, l := range all {
		name := "net/ipv6/conf/" + l.Name + "/accept_ra"
		v, err := h.links.Sysctl(name)
		if errors.Is(err, nl.ErrNotFound) || v != "1" {
			continue // gone meanwhile, or no IPv6 on it
		}
		if _, err := h.links.SetSysctl(name, "2"); err != nil && !errors.Is(err, nl.ErrNotFound) {
			return fmt.Errorf("keep router advertisements: %w", err)
		}
	}
	return nil
}
