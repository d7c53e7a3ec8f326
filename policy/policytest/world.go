// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package policytest makes clusters that change at random, for tests that
// compare what enforces policies with what policies say.
package policytest

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
	"github.com/sealane/sealane/policy/oracle"
)

// World is a cluster that changes at random. Its names, labels, addresses and
// ports are few, so that they meet often. Equal sources make equal worlds.
type World struct {
	*rand.Rand
	WellFormed bool // make no policy that the API server would refuse

	Pods       map[string]policy.Pod // by namespace/name; Local is not set
	Namespaces map[string]map[string]string
	Policies   map[string]*networkingv1.NetworkPolicy // by namespace/name
	Nodes      map[string][]netip.Addr
	Compilers  map[string]*compile.Compiler // by node; they are told of every step

	uids int
}

// New returns an empty world of two nodes, a and b.
func New(source rand.Source) *World {
	return &World{
		Rand: rand.New(source), Pods: map[string]policy.Pod{},
		Namespaces: map[string]map[string]string{}, Policies: map[string]*networkingv1.NetworkPolicy{},
		Nodes: map[string][]netip.Addr{
			"a": {netip.MustParseAddr("172.16.0.1"), netip.MustParseAddr("fd01::1")},
			"b": {netip.MustParseAddr("172.16.0.2")},
		},
		Compilers: map[string]*compile.Compiler{"a": compile.NewCompiler(), "b": compile.NewCompiler()},
	}
}

// Pick returns one of several.
func Pick[T any](w *World, of ...T) T { return of[w.IntN(len(of))] }

func (w *World) one(in int) bool { return w.IntN(in) == 0 }

// slip says, seldom, that something malformed is to be made.
func (w *World) slip(in int) bool { return !w.WellFormed && w.one(in) }

func (w *World) labels(keys ...string) map[string]string {
	set := map[string]string{}
	for _, k := range keys {
		if !w.one(3) {
			set[k] = Pick(w, "x", "y")
		}
	}
	return set
}

func (w *World) namespace() string { return fmt.Sprintf("n%d", w.IntN(4)) }

// Step changes one thing, everywhere.
func (w *World) Step() {
	switch w.IntN(10) {
	case 0, 1, 2, 3:
		w.changePod()
	case 4:
		w.changeNamespace()
	default:
		w.changePolicy()
	}
}

func (w *World) changePod() {
	namespace, name := w.namespace(), fmt.Sprintf("p%d", w.IntN(4))
	key := namespace + "/" + name
	pod, present := w.Pods[key]
	switch {
	case present && w.one(4):
		delete(w.Pods, key)
		for _, c := range w.Compilers {
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
		pod = policy.Pod{
			Namespace: namespace, Name: name, UID: fmt.Sprintf("%08d", w.uids), Labels: w.labels("app", "tier"), Ports: w.namedPorts(),
			Addresses: w.addresses(), Node: Pick(w, "a", "b"), Created: time.Unix(int64(w.IntN(3)), 0),
		}
	}
	w.Pods[key] = pod
	for node, c := range w.Compilers {
		pod.Local = node == pod.Node
		c.SetPod(pod)
	}
}

func (w *World) addresses() []netip.Addr {
	if w.one(8) {
		return nil
	}
	n := w.IntN(20)
	v4 := netip.AddrFrom4([4]byte{10, 0, byte(n % 3), byte(n * 10)})
	v6 := netip.MustParseAddr(fmt.Sprintf("fd00::%x", n))
	return Pick(w, []netip.Addr{v4}, []netip.Addr{v6}, []netip.Addr{v4, v6})
}

func (w *World) namedPorts() []policy.NamedPort {
	var ports []policy.NamedPort
	for _, p := range []policy.NamedPort{
		{Name: "web", Protocol: ipproto.TCP, Port: 80},
		{Name: "web", Protocol: ipproto.TCP, Port: 81},
		{Name: "web", Protocol: ipproto.UDP, Port: 80},
		{Name: "dns", Protocol: ipproto.UDP, Port: 53},
		{Name: "dns", Protocol: ipproto.TCP, Port: 53},
		{Name: "sig", Protocol: ipproto.SCTP, Port: 90},
		{Name: "", Protocol: ipproto.TCP, Port: 80},
		{Name: "alt", Protocol: ipproto.TCP, Port: 8080},
	} {
		if w.one(3) {
			ports = append(ports, p)
		}
	}
	return ports
}

func (w *World) changeNamespace() {
	name := w.namespace()
	if w.one(3) {
		delete(w.Namespaces, name)
		for _, c := range w.Compilers {
			c.DeleteNamespace(name)
		}
		return
	}
	set := w.labels("team", "env")
	set["kubernetes.io/metadata.name"] = name
	w.Namespaces[name] = set
	for _, c := range w.Compilers {
		c.SetNamespace(name, set)
	}
}

func (w *World) changePolicy() {
	namespace, name := w.namespace(), fmt.Sprintf("q%d", w.IntN(3))
	key := namespace + "/" + name
	if _, present := w.Policies[key]; present && w.one(3) {
		delete(w.Policies, key)
		for _, c := range w.Compilers {
			c.DeletePolicy(namespace, name)
		}
		return
	}
	np := w.networkPolicy(namespace, name)
	w.Policies[key] = np
	for _, c := range w.Compilers {
		_ = c.SetPolicy(np) // what it says of malformed ones has tests of its own
	}
}

// Cluster is the world as Decide takes it.
func (w *World) Cluster() oracle.Cluster {
	c := oracle.Cluster{Namespaces: w.Namespaces, Nodes: w.Nodes}
	for _, k := range slices.Sorted(maps.Keys(w.Pods)) {
		c.Pods = append(c.Pods, w.Pods[k])
	}
	for _, k := range slices.Sorted(maps.Keys(w.Policies)) {
		c.Policies = append(c.Policies, w.Policies[k])
	}
	return c
}

// Fresh is a compiler that was told of the world as it is, in no order.
func (w *World) Fresh(node string) *compile.Compiler {
	c := compile.NewCompiler()
	for _, pod := range w.Pods {
		pod.Local = pod.Node == node
		c.SetPod(pod)
	}
	for _, np := range w.Policies {
		_ = c.SetPolicy(np)
	}
	for name, set := range w.Namespaces {
		c.SetNamespace(name, set)
	}
	return c
}

// Addresses returns every address of interest: pods', nodes', and others in and
// out of the ipBlocks.
func (w *World) Addresses() []netip.Addr {
	addrs := slices.Concat(w.Nodes["a"], w.Nodes["b"])
	for _, pod := range w.Pods {
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

// Ports returns traffic without addresses: ports in and next to those of policies.
func Ports() []policy.Traffic {
	out := []policy.Traffic{{Protocol: 1}, {Protocol: 58}, {Protocol: 47}}
	for _, protocol := range []uint8{ipproto.TCP, ipproto.UDP, ipproto.SCTP} {
		for _, port := range []uint16{0, 1, 2, 52, 53, 54, 55, 79, 80, 81, 82, 83, 89, 90, 91, 8079, 8080, 8081, 65534, 65535} {
			out = append(out, policy.Traffic{Protocol: protocol, Port: port})
		}
	}
	return out
}
