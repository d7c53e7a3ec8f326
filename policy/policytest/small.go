// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policytest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/oracle"
)

// Small is a cluster whose pods have names that Traffic knows. All pods run on one node.
func Small() oracle.Cluster {
	addrs := func(texts ...string) []netip.Addr {
		var out []netip.Addr
		for _, s := range texts {
			out = append(out, netip.MustParseAddr(s))
		}
		return out
	}
	return oracle.Cluster{
		Namespaces: map[string]map[string]string{
			"default": {"kubernetes.io/metadata.name": "default"},
			"shop":    {"kubernetes.io/metadata.name": "shop", "team": "blue"},
		},
		Pods: []policy.Pod{
			{
				Namespace: "default", Name: "web", UID: "1", Labels: map[string]string{"app": "web"}, Node: "a", Addresses: addrs("10.0.0.1", "fd00::1"),
				Ports: []policy.NamedPort{{Name: "http", Protocol: ipproto.TCP, Port: 80}, {Name: "http", Protocol: ipproto.UDP, Port: 8443}, {Name: "", Protocol: ipproto.TCP, Port: 99}},
			},
			{
				Namespace: "default", Name: "db", UID: "2", Labels: map[string]string{"app": "db"}, Node: "a", Addresses: addrs("10.0.0.2", "fd00::2"),
				Ports: []policy.NamedPort{{Name: "sql", Protocol: ipproto.TCP, Port: 5432}},
			},
			{
				Namespace: "shop", Name: "cart", UID: "3", Labels: map[string]string{"app": "web"}, Node: "a", Addresses: addrs("10.0.1.1", "fd00::101"),
				Ports: []policy.NamedPort{{Name: "http", Protocol: ipproto.TCP, Port: 8080}},
			},
			{Namespace: "shop", Name: "agent", UID: "4", Labels: map[string]string{"app": "db"}, Node: "a"}, // host network
		},
		Nodes: map[string][]netip.Addr{"a": addrs("172.16.0.1", "fd01::1")},
	}
}

// PolicyOf reads a policy, or its spec: then it is default/it.
func PolicyOf(t *testing.T, spec string) *networkingv1.NetworkPolicy {
	t.Helper()
	text := "metadata: {namespace: default, name: it}\nspec: " + spec
	if strings.HasPrefix(spec, "metadata") {
		text = spec
	}
	np := &networkingv1.NetworkPolicy{}
	if err := yaml.UnmarshalStrict([]byte(text), np); err != nil {
		t.Fatalf("read %s: %v", text, err)
	}
	return np
}

// TrafficOf reads "web > cart tcp/80"; a name is the pod's first address, and
// with 6 behind it the second.
func TrafficOf(t *testing.T, text string) policy.Traffic {
	t.Helper()
	var from, to, port string
	if _, err := fmt.Sscanf(text, "%s > %s %s", &from, &to, &port); err != nil {
		t.Fatalf("read %q: %v", text, err)
	}
	name, number, _ := strings.Cut(port, "/")
	x := policy.Traffic{From: Address(from), To: Address(to), Protocol: map[string]uint8{"tcp": ipproto.TCP, "udp": ipproto.UDP, "sctp": ipproto.SCTP, "icmp": 1}[name]}
	if number != "" {
		fmt.Sscan(number, &x.Port)
	}
	return x
}

// Address returns the address of a name that TrafficOf knows, or reads one.
func Address(name string) netip.Addr {
	switch name {
	case "web":
		name = "10.0.0.1"
	case "web6":
		name = "fd00::1"
	case "db":
		name = "10.0.0.2"
	case "db6":
		name = "fd00::2"
	case "cart":
		name = "10.0.1.1"
	case "cart6":
		name = "fd00::101"
	case "node":
		name = "172.16.0.1"
	}
	return netip.MustParseAddr(name)
}
