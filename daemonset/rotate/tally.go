// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/pairing"
)

// Roles in an exchange, as metrics name them.
const (
	roleServer = "server"
	roleClient = "client"
)

func (p *pairings) count(role, result string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.counts[[2]string{role, result}]++
}

// failed counts a failure. If the failure may be due to an attack or a wrong clock, it
// tells the operator, once until pairing works again; other failures heal without help.
func (p *pairings) failed(ctx context.Context, role string, peer keymgr.NodeID, err error) {
	reason := pairing.Reason(err)
	p.count(role, reason)
	if ctx.Err() != nil {
		return
	}
	p.log.Debug("preshared key not agreed on", "role", role, "peer", peer.Name, "reason", reason, "error", err)
	if reason != "downgrade" && reason != "certificate" && reason != "protocol" {
		return
	}
	about := [2]string{peer.UID, reason} // all strangers count as one, because there may be many
	p.mu.Lock()
	again := p.told[about]
	p.told[about] = true
	p.mu.Unlock()
	if again {
		return
	}
	p.log.Warn("pairing refused", "role", role, "peer", peer.Name, "reason", reason, "error", err)
	self := p.identity.Node
	p.events.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: self.Name, UID: self.UID, Type: kube.EventWarning, Reason: "PairingRefused",
		Message: fmt.Sprintf("no preshared key with %s (%s): %v", peer.Name, reason, err),
	})
}

// soFar returns the outcomes since the daemon started.
func (p *pairings) soFar() []status.Pairing {
	p.mu.Lock()
	defer p.mu.Unlock()
	var all []status.Pairing
	for what, n := range p.counts {
		all = append(all, status.Pairing{Role: what[0], Result: what[1], Count: n})
	}
	slices.SortFunc(all, func(a, b status.Pairing) int {
		return cmp.Or(cmp.Compare(a.Role, b.Role), cmp.Compare(a.Result, b.Result))
	})
	return all
}
