// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"net/netip"
	"slices"
	"time"
)

// DryRun is the annotation of a NetworkPolicy that, with the value "true",
// takes it out of force: what it would deny is reported and passes.
const DryRun = "sealane.io/dry-run"

// Pod is what policies ask of a pod.
type Pod struct {
	Namespace, Name, UID string
	Labels               map[string]string
	Ports                []NamedPort
	Addresses            []netip.Addr // none: host network, finished, or not yet addressed
	Node                 string       // the node it runs on; only the oracle looks at it
	Local                bool         // runs on the node whose tables are compiled; the oracle does not look at it
	Created              time.Time    // the newest pod has an address that two claim; then the greatest UID
}

// Normal returns the pod with what has no order sorted, and without what has no meaning.
func (p Pod) Normal() Pod {
	p.Ports = slices.DeleteFunc(slices.Clone(p.Ports), func(port NamedPort) bool { return port.Name == "" })
	p.Ports = mergeNamed(p.Ports)
	p.Addresses = slices.Clone(p.Addresses)
	for i, a := range p.Addresses {
		p.Addresses[i] = a.Unmap()
	}
	slices.SortFunc(p.Addresses, netip.Addr.Compare)
	p.Addresses = slices.Compact(p.Addresses)
	return p
}

// NamedPort is a container's port that a policy may name. Ports without a name
// may be given too; they mean nothing here.
type NamedPort struct {
	Name     string
	Protocol uint8 // as in the IP header
	Port     uint16
}

// Traffic is the first packet of a connection.
type Traffic struct {
	From, To netip.Addr
	Protocol uint8  // as in the IP header
	Port     uint16 // of the destination; 0 for protocols without ports
}
