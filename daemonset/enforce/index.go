// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"net/netip"
	"slices"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/daemonset/kube/objects"
)

// podName is a pod as the API has it; the zero value is nobody.
type podName struct{ namespace, name string }

func nameOf(p cni.PodRef) podName { return podName{p.Namespace, p.Name} }

// index knows which addresses of this node belong to which pod.
type index struct {
	owners map[netip.Addr]cni.PodRef
	pods   map[podName][]netip.Addr // in no order; those of nobody are not listed
}

func newIndex() index {
	return index{owners: map[netip.Addr]cni.PodRef{}, pods: map[podName][]netip.Addr{}}
}

// enter gives an address to a pod, whoever had it. It returns the former owner's name.
func (b index) enter(address netip.Addr, pod cni.PodRef) podName {
	before := b.strike(address)
	b.owners[address] = pod
	if !pod.IsZero() {
		b.pods[nameOf(pod)] = append(b.pods[nameOf(pod)], address)
	}
	return before
}

// strike takes an address away from its owner and returns that one's name.
func (b index) strike(address netip.Addr) podName {
	pod, ok := b.owners[address]
	if !ok {
		return podName{}
	}
	delete(b.owners, address)
	name := nameOf(pod)
	rest := slices.DeleteFunc(b.pods[name], func(a netip.Addr) bool { return a == address })
	if b.pods[name] = rest; len(rest) == 0 {
		delete(b.pods, name)
	}
	return name
}

// nobodys reports whether an address was given out without saying to which pod.
func (b index) nobodys(address netip.Addr) bool {
	pod, ok := b.owners[address]
	return ok && pod.IsZero()
}

// addresses returns those that the very pod of an object has.
func (b index) addresses(o objects.Pod) []netip.Addr {
	var out []netip.Addr
	for _, a := range b.pods[podName{o.Namespace, o.Name}] {
		if same(b.owners[a], o) {
			out = append(out, a)
		}
	}
	return out
}

// same reports whether an object is of the pod that the runtime means, and not of
// another one of that name. Of a static pod the kubelet tells its own UID, not
// that of its mirror in the API; some runtimes tell none.
func same(p cni.PodRef, o objects.Pod) bool {
	return p.Namespace == o.Namespace && p.Name == o.Name && (p.UID == "" || p.UID == o.UID || p.UID == o.StaticUID)
}
