// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package observe

import (
	"net/netip"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/oracle"
)

// Names finds the owner of an address.
type Names interface {
	PodAt(netip.Addr) (policy.Pod, bool)
	NodeAt(netip.Addr) (name string, ok bool)
	ServiceAt(netip.Addr) (name string, ok bool) // namespace/name
}

// Rules is what decides policies, beside pods.
type Rules interface {
	Namespace(name string) (objects.Namespace, bool)
	Policies(namespace string) []*networkingv1.NetworkPolicy
	NodeAddresses(name string) []netip.Addr
}

// Observer adds to flows what a node knows about them.
type Observer struct {
	Node  string // the name of this node
	Names Names
	Rules Rules
	// Lane returns the lane to another node; nil if that node is not a peer.
	Lane func(node string) *Lane
}

// identify fills in everything except what policies decide.
func (o *Observer) identify(f Flow) Record {
	r := Record{
		Time: f.Time, Node: o.Node, Verdict: f.Verdict, Reason: f.Reason, Protocol: ProtocolName(f.Protocol),
		Source: o.end(f.Source), Destination: o.end(f.Destination),
	}
	if !hasPorts(f.Protocol) {
		r.Source.Port, r.Destination.Port = 0, 0
	}
	if f.Frontend.IsValid() {
		name, _ := o.Names.ServiceAt(f.Frontend.Addr())
		r.Service = &Service{Address: f.Frontend, Name: name}
	}
	for _, e := range []End{r.Source, r.Destination} {
		if e.Node != "" && e.Node != o.Node {
			r.Lane = o.Lane(e.Node)
		}
	}
	return r
}

func (o *Observer) end(a netip.AddrPort) End {
	e := End{Address: a.Addr(), Port: a.Port()}
	if pod, ok := o.Names.PodAt(a.Addr()); ok {
		e.Pod, e.Node = pod.Namespace+"/"+pod.Name, pod.Node
	} else {
		e.Node, _ = o.Names.NodeAt(a.Addr())
	}
	return e
}

// decide adds what policies decide, for the directions that this node enforces.
func (o *Observer) decide(f Flow, r *Record) {
	x := policy.Traffic{From: f.Source.Addr(), To: f.Destination.Addr(), Protocol: f.Protocol}
	if hasPorts(f.Protocol) {
		x.Port = f.Destination.Port()
	}
	d := oracle.Decide(o.cluster(x), x)
	dryRun := f.Verdict == DryRunDenied
	if r.Source.Pod != "" && r.Source.Node == o.Node {
		r.Egress = sideOf(d.Egress, dryRun)
	}
	if r.Destination.Pod != "" && r.Destination.Node == o.Node {
		r.Ingress = sideOf(d.Ingress, dryRun)
	}
}

// cluster is the part of the cluster that a decision depends on: two pods,
// their nodes, and the namespaces that they are in.
func (o *Observer) cluster(x policy.Traffic) oracle.Cluster {
	c := oracle.Cluster{Namespaces: map[string]map[string]string{}, Nodes: map[string][]netip.Addr{}}
	for _, a := range []netip.Addr{x.From, x.To} {
		pod, ok := o.Names.PodAt(a)
		if !ok {
			continue
		}
		c.Pods = append(c.Pods, pod)
		c.Nodes[pod.Node] = o.Rules.NodeAddresses(pod.Node)
		if space, known := o.Rules.Namespace(pod.Namespace); known {
			c.Namespaces[pod.Namespace] = space.Labels
		}
		if c.Pods[0].Namespace != pod.Namespace || len(c.Pods) == 1 {
			c.Policies = append(c.Policies, o.Rules.Policies(pod.Namespace)...)
		}
	}
	return c
}

func sideOf(s oracle.Side, dryRun bool) *Side {
	j := s.Now
	if dryRun {
		j = s.DryRun
	}
	return &Side{Allowed: j.Allowed, DryRun: dryRun, Always: s.Always, Isolating: j.Isolating, Allowing: j.Allowing}
}
