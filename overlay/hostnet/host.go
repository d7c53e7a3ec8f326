// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os/exec"

	"sigs.k8s.io/knftables"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
)

// links is what this package needs of package nl.
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
	Do(func() error) error
}

// Host is the host's network outside of the lanes. Only one goroutine may call its methods.
type Host struct {
	links links
	nft   knftables.Interface
	log   *slog.Logger
	masq  masquerade
	// warned reports whether the host's own filter has been checked.
	warned bool
}

// New opens the nftables of the handle's namespace. It fails where nftables is not
// available.
func New(l *nl.Handle, log *slog.Logger) (*Host, error) {
	h := &Host{links: l, log: log}
	err := l.Do(func() (err error) {
		h.nft, err = knftables.New(knftables.InetFamily, tableName)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open nftables (is the program nft there, 1.0.1 or later?): %w", err)
	}
	return h, nil
}

// Apply makes routes, rules, masquerade and settings as planned. It is idempotent: it
// leaves alone what is right and repairs what others have changed. The tunnels of the plan
// should exist; Apply reports and leaves out routes into a missing one, whose addresses
// stay refused.
func (h *Host) Apply(ctx context.Context, p overlay.Plan) error {
	if err := h.enableForwarding(p.Masquerade.Pods); err != nil {
		return err
	}
	h.warnOfFilter(ctx)
	// Masquerade comes before the routes that packets could take. Each step runs even if
	// another one fails, so that the unreachable routes are there in any case.
	return errors.Join(h.masquerade(ctx, p.Masquerade, p.Ports), h.applyRoutes(p.Routes), h.applyRules(p.Rules))
}

// Retract removes routes into lanes that the plan does not have. The unreachable routes
// behind them stay, so that what was sent there is refused.
func (h *Host) Retract(p overlay.Plan) error {
	own, err := h.ownRoutes()
	if err != nil {
		return err
	}
	for _, r := range p.Routes {
		if !r.Unreachable {
			forgetReplaced(own, nl.Route{Dst: r.Dst, Table: tableOf(r), Metric: r.Metric})
		}
	}
	var errs []error
	for r := range own {
		if !r.Unreachable {
			errs = append(errs, h.links.DeleteRoute(r))
		}
	}
	return errors.Join(errs...)
}

// Clean removes every route, rule and nftables object of this package. Kernel settings
// stay, because others may rely on them by now.
func (h *Host) Clean(ctx context.Context) error {
	h.masq = masquerade{}
	tx := h.nft.NewTransaction()
	tx.Add(&knftables.Table{}) // deleting a missing table is an error
	tx.Delete(&knftables.Table{})
	err := h.links.Do(func() error { return h.nft.Run(ctx, tx) })
	if err != nil {
		err = fmt.Errorf("remove nftables table %s: %w", tableName, err)
	}
	return errors.Join(err, h.applyRules(nil), h.applyRoutes(nil))
}

// enableForwarding turns on forwarding for the address families of the pods.
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

// keepRouterAdvertisements sets accept_ra to 2 where it is 1: with 1, a node that forwards
// ignores router advertisements and would lose its own default route.
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
			continue // the device has gone, or has no IPv6
		}
		if _, err := h.links.SetSysctl(name, "2"); err != nil && !errors.Is(err, nl.ErrNotFound) {
			return fmt.Errorf("keep router advertisements: %w", err)
		}
	}
	return nil
}

// warnOfFilter warns once if the host's own filter drops forwarded packets, which includes
// those of pods. Only the operator knows whether that is intended.
func (h *Host) warnOfFilter(ctx context.Context) {
	if h.warned {
		return
	}
	h.warned = true
	for _, family := range []string{"ip", "ip6"} {
		var out []byte
		err := h.links.Do(func() (err error) {
			// A missing chain makes this fail, and then nothing needs a warning.
			out, err = exec.CommandContext(ctx, "nft", "list", "chain", family, "filter", "FORWARD").Output()
			return err
		})
		if err == nil && bytes.Contains(out, []byte("policy drop")) {
			h.log.Warn("the host drops forwarded packets: pods may not reach the outside (see iptables -P FORWARD)", "family", family)
		}
	}
}
