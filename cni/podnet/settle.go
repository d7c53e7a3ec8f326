// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nl"
)

// settleTimeout is far longer than the kernel's workers take on a busy node.
const settleTimeout = 5 * time.Second

// errUnsettled means that the kernel did not finish what it was told to do.
var errUnsettled = errors.New("IPv6 address did not become usable")

// settle waits for two things that the kernel leaves to its workers. Without them the first
// packets are lost: some 15 % of first pings on a busy node.
//
// The host's end was set up while the pod's was still down, so it has no carrier and drops
// what it has to send until link-watch has run. Since Linux 6.8, querying one device does
// the work of link-watch. On earlier kernels its worker is already scheduled, and finishes
// before the runtime can start a process in the pod.
//
// A worker adds the local route of an IPv6 address, even without duplicate address
// detection; until then the pod treats packets for that address as packets to forward.
func (p *pair) settle(ctx context.Context) error {
	if _, err := p.host.LinkByIndex(p.outer.Index); err != nil {
		return err
	}
	if ready, err := p.ready(); ready || err != nil {
		return err
	}
	watched, cancel := context.WithTimeout(ctx, settleTimeout)
	defer cancel()
	changes, err := p.pod.Watch(watched)
	if err != nil {
		return err
	}
	for {
		// This runs after the watch has begun, so that no change is missed.
		if ready, err := p.ready(); ready || err != nil {
			return err
		}
		if _, ok := <-changes; !ok {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return fmt.Errorf("%w within %v: %v", errUnsettled, settleTimeout, p.spec.Addresses)
		}
	}
}

// ready reports whether the pod accepts packets to all its addresses.
func (p *pair) ready() (bool, error) {
	local, err := p.pod.Routes(nl.RouteFilter{Table: unix.RT_TABLE_LOCAL, Device: p.inner.Index})
	if err != nil {
		return false, err
	}
	for _, a := range p.spec.Addresses {
		if !slices.ContainsFunc(local, func(r nl.Route) bool { return r.Dst == host(a) }) {
			return false, nil
		}
	}
	return true, nil
}
