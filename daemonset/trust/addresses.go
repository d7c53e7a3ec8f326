// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"net/netip"
	"slices"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
)

// rivalPause is the least time between two requests that only changes of other Nodes ask
// for: a kubelet must not use up this node's share of certificates.
const rivalPause = 15 * time.Minute

// asked is what the authority may have gone by when it left an address out of a
// certificate. Until that changes, another request would have the same answer.
type asked struct {
	addresses    []netip.Addr
	controlPlane bool
	rivals       []string
	at           time.Time // when the certificate came
}

// needsAddresses reports whether to ask for a certificate that names an address which the
// present one does not.
func (k *Keeper) needsAddresses(w *wanted) bool {
	certified, named := k.identity.CertifiedAddresses()
	if !named || !slices.ContainsFunc(w.self.FirstAddresses(), func(a netip.Addr) bool { return !slices.Contains(certified, a) }) {
		return false
	}
	if !slices.Equal(k.asked.addresses, w.self.Addresses) || k.asked.controlPlane != w.self.ControlPlane {
		return true
	}
	return !slices.Equal(k.asked.rivals, w.rivals) && k.clock().Sub(k.asked.at) >= rivalPause
}

// rivals returns the UIDs of the other nodes that list an address of this one, sorted.
func rivals(self kube.Node, nodes []kube.Node) []string {
	var all []string
	for _, n := range nodes {
		shared := func(a netip.Addr) bool { return slices.Contains(self.Addresses, a) }
		if n.UID != self.UID && slices.ContainsFunc(n.Addresses, shared) {
			all = append(all, n.UID)
		}
	}
	slices.Sort(all)
	return all
}
