// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// world is a cluster that changes at random. Its names, labels, addresses and
// ports are few, so that they meet often.
type world struct {
	*rand.Rand
	pods       map[string]Pod
	namespaces map[string]map[string]string
	policies   map[string]*networkingv1.NetworkPolicy
	nodes      map[string][]netip.Addr
	uids       int
	compilers  map[string]*Compiler // by node
}

func newWorld(source rand.Source) *world {
	return &world{
		Rand: rand.New(source), pods: map[string]Pod{},
		namespaces: map[string]map[string]string{}, policies: map[string]*networkingv1.NetworkPolicy{},
		nodes: map[string][]netip.Addr{
			"a": {netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("fd01::1")},
			"b": {netip.MustParseAddr("172.16.0.2")},
		},
		compilers: map[string]*Compiler{"a": NewCompiler(), "b": NewCompiler()},
	}
}

func pick[T any](w *world, of ...T) T { return of[w.IntN(len(of))] }

func (w *world) one(in int) bool { return w.IntN(in) == 0 }

func (w *world) labels(keys ...string) map[string]string {
	set := map[string]string{}
	for _, k := range keys {
		if !w.one(3) {
			set[k] = pick(w, "x", "y")
		}
	}
	return set
}

func (w *world) namespace() string { return fmt.Sprintf("n%d", w.IntN(4)) }

// step changes one thing, everywhere.
func (w *world) step() {
	switch w.IntN(10) {
	case 0, 1, 2, 3:
		w.changePod()
	case 4:
		w.changeNamespace()
	default:
		w.changePolicy()
	}
}

func (w *world) changePod() {
	namespace, name := w.namespace(), fmt.Sprintf("p%d", w.IntN(4))
	key := namespace + "/" + name
	pod, present := w.pods[key]
	switch {
	case present && w.one(4):
		delete(w.pods, key)
		for _, c := range w.compilers {
			c.DeletePod(namespace, name)
		}
		return
	case present && w.one(3):
		pod.Labels = w.labels("app", "tier")
	case present && w.one(3):
		pod.Addresses = w.addresses()
	case present && w.one(3):
		pod.Ports = w.namedPorts()
	default:
		w.uids++
		pod = Pod{
			Namespace: namespace, Name: name, UID: fmt.Sprintf("%08d", w.uids), Labels: w.labels("app", "tier"), Ports: w.namedPorts(),
			Addresses: w.addresses(), Node: pick(w, "a", "b"), Created: time.Unix(int64(w.IntN(3)), 0),
		}
	}
	w.pods[key] = pod
	for node, c := range w.compilers {
		pod.Local = node == pod.Node
		c.SetPod(pod)
	}
}

func (w *world) addresses() []netip.Addr {
	if w.one(8) {
		return nil
	}
	n := w.IntN(20)
	v4 := netip.AddrFrom4([4]byte{10, 0, byte(n % 3), byte(n * 10)})
	v6 := netip.MustParseAddr(fmt.Sprintf("fd00::%x", n))
	return pick(w, []netip.Addr{v4}, []netip.Addr{v6}, []netip.Addr{v4, v6})
}

func (w *world) namedPorts() []NamedPort {
	var ports []NamedPort
	for _, p := range []NamedPort{
		{"web", TCP, 80}, {"web", TCP, 81}, {"web", UDP, 80}, {"dns", UDP, 53}, {"dns", TCP, 53},
		{"sig", SCTP, 90}, {"", TCP, 80}, {"alt", TCP, 8080},
	} {
		if w.one(3) {
			ports = append(ports, p)
		}
	}
	return ports
}

func (w *world) changeNamespace() {
	name := w.namespace()
	if w.one(3) {
		delete(w.namespaces, name)
		for _, c := range w.compilers {
			c.DeleteNamespace(name)
		}
		return
	}
	set := w.labels("team", "env")
	set["kubernetes.io/metadata.name"] = name
	w.namespaces[name] = set
	for _, c := range w.compilers {
		c.SetNamespace(name, set)
	}
}

func (w *world) changePolicy() {
	namespace, name := w.namespace(), fmt.Sprintf("q%d", w.IntN(3))
	key := namespace + "/" + name
	if _, present := w.policies[key]; present && w.one(3) {
		delete(w.policies, key)
		for _, c := range w.compilers {
			c.DeletePolicy(namespace, name)
		}
		return
	}
	np := w.policy(namespace, name)
	w.policies[key] = np
	for _, c := range w.compilers {
		_ = c.SetPolicy(np) // what it says of malformed ones has tests of its own
	}
}

func (w *world) policy(namespace, name string) *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name}}
	if w.one(5) {
		np.Annotations = map[string]string{DryRun: pick(w, "true", "true", "false")}
	}
	np.Spec.PodSelector = *w.selector("app", "tier")
	switch w.IntN(6) {
	case 0:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeIngress}
	case 1:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	case 2, 3:
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress, networkingv1.PolicyTypeIngress}
	case 4:
		if w.one(8) {
			np.Spec.PolicyTypes = []networkingv1.PolicyType{"Sideways"}
		}
	}
	for range w.IntN(3) {
		np.Spec.Ingress = append(np.Spec.Ingress, networkingv1.NetworkPolicyIngressRule{From: w.peers(), Ports: w.ports()})
	}
	for range w.IntN(3) {
		np.Spec.Egress = append(np.Spec.Egress, networkingv1.NetworkPolicyEgressRule{To: w.peers(), Ports: w.ports()})
	}
	return np
}

func (w *world) selector(keys ...string) *metav1.LabelSelector {
	s := &metav1.LabelSelector{}
	if w.one(4) {
		return s
	}
	if w.one(2) {
		s.MatchLabels = map[string]string{pick(w, keys...): pick(w, "x", "y")}
	}
	for range w.IntN(3) {
		r := metav1.LabelSelectorRequirement{Key: pick(w, keys...), Operator: pick(w,
			metav1.LabelSelectorOpIn, metav1.LabelSelectorOpNotIn, metav1.LabelSelectorOpExists, metav1.LabelSelectorOpDoesNotExist)}
		if r.Operator == metav1.LabelSelectorOpIn || r.Operator == metav1.LabelSelectorOpNotIn {
			r.Values = pick(w, []string{"x"}, []string{"y"}, []string{"y", "x"}, []string{"x", "z"})
		}
		if w.one(40) {
			r.Operator = "Near"
		}
		s.MatchExpressions = append(s.MatchExpressions, r)
	}
	return s
}

func (w *world) peers() []networkingv1.NetworkPolicyPeer {
	var peers []networkingv1.NetworkPolicyPeer
	for range w.IntN(4) {
		var p networkingv1.NetworkPolicyPeer
		switch w.IntN(5) {
		case 0:
			p.PodSelector = w.selector("app", "tier")
		case 1:
			p.NamespaceSelector = w.selector("team", "env", "kubernetes.io/metadata.name")
		case 2:
			p.PodSelector, p.NamespaceSelector = w.selector("app", "tier"), w.selector("team", "env")
		default:
			p.IPBlock = w.ipBlock()
		}
		if w.one(40) {
			p.IPBlock = w.ipBlock() // perhaps beside a selector
		} else if w.one(40) {
			p = networkingv1.NetworkPolicyPeer{}
		}
		peers = append(peers, p)
	}
	return peers
}

func cidrs() []string {
	return []string{
		"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/22", "10.0.0.0/23", "10.0.1.7/24", "10.0.1.0/24", "10.0.1.128/25", "10.0.2.0/24",
		"10.0.1.10/32", "192.168.0.0/16", "192.168.1.0/24", "192.168.1.128/25", "172.16.0.0/30", "::/0", "2001:db8::/32",
		"2001:db8:1::/48", "fd00::/8", "fd00::/124", "fd00::4/126", "fd00::5/128",
	}
}

func (w *world) ipBlock() *networkingv1.IPBlock {
	malformed := []string{"", "10.0.0.0", "10.0.0.0/33", "::ffff:10.0.0.0/104", "10.0.0/8", "fe80::1%eth0/64"}
	b := &networkingv1.IPBlock{CIDR: pick(w, cidrs()...)}
	if w.one(30) {
		b.CIDR = pick(w, malformed...)
	}
	outer, err := netip.ParsePrefix(b.CIDR)
	for range w.IntN(4) {
		text := pick(w, cidrs()...)
		inner := netip.MustParsePrefix(text)
		if err == nil && outer.Contains(inner.Addr()) && inner.Bits() > outer.Bits() || w.one(30) {
			b.Except = append(b.Except, text)
		}
	}
	if w.one(40) {
		b.Except = append(b.Except, pick(w, malformed...))
	}
	return b
}

func (w *world) ports() []networkingv1.NetworkPolicyPort {
	var ports []networkingv1.NetworkPolicyPort
	for range w.IntN(4) {
		var p networkingv1.NetworkPolicyPort
		if !w.one(4) {
			protocol := pick(w, corev1.ProtocolTCP, corev1.ProtocolTCP, corev1.ProtocolUDP, corev1.ProtocolSCTP)
			if w.one(40) {
				protocol = "ICMP"
			}
			p.Protocol = &protocol
		}
		switch w.IntN(6) {
		case 0:
		case 1, 2:
			p.Port = new(intstr.FromString(pick(w, "web", "dns", "sig", "alt", "")))
		default:
			p.Port = new(intstr.FromInt32(pick(w, int32(1), 53, 80, 81, 90, 8080, 65535, 0)))
			if w.one(2) {
				p.EndPort = new(pick(w, int32(53), 80, 81, 90, 8080, 65535, 65536))
			}
		}
		if w.one(40) {
			p.EndPort = new(int32(100))
		}
		ports = append(ports, p)
	}
	return ports
}

func (w *world) cluster() Cluster {
	c := Cluster{Namespaces: w.namespaces, Nodes: w.nodes}
	for _, pod := range w.pods {
		c.Pods = append(c.Pods, pod)
	}
	for _, np := range w.policies {
		c.Policies = append(c.Policies, np)
	}
	return c
}

// fresh is a compiler that was told of the world as it is, in no order.
func (w *world) fresh(node string) *Compiler {
	c := NewCompiler()
	for _, pod := range w.pods {
		pod.Local = pod.Node == node
		c.SetPod(pod)
	}
	for _, np := range w.policies {
		_ = c.SetPolicy(np)
	}
	for name, set := range w.namespaces {
		c.SetNamespace(name, set)
	}
	return c
}

// everywhere returns every address of interest.
func (w *world) everywhere() []netip.Addr {
	addrs := slices.Concat(w.nodes["a"], w.nodes["b"])
	for _, pod := range w.pods {
		addrs = append(addrs, pod.Addresses...)
	}
	for _, text := range []string{
		"8.8.8.8", "10.0.1.10", "10.0.1.200", "10.0.3.9", "192.168.0.9", "192.168.1.9", "192.168.1.129", "172.16.0.3",
		"::ffff:192.168.1.9", "2001:db8::9", "2001:db8:1::9", "2001:4860::8", "fd00::5", "fd00::6", "fd00::ff",
	} {
		addrs = append(addrs, netip.MustParseAddr(text))
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs)
}

// borders are ports in and next to those of policies.
func borders() []Traffic {
	out := []Traffic{{Protocol: 1}, {Protocol: 58}, {Protocol: 47}}
	for _, protocol := range []uint8{TCP, UDP, SCTP} {
		for _, port := range []uint16{0, 1, 2, 52, 53, 54, 79, 80, 81, 82, 89, 90, 91, 8079, 8080, 8081, 65534, 65535} {
			out = append(out, Traffic{Protocol: protocol, Port: port})
		}
	}
	return out
}
