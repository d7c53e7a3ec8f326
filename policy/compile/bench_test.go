// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile_test

import (
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	"sigs.k8s.io/yaml"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
)

// city is a large cluster: 10,000 pods in 500 namespaces, of which 100 run on
// this node, each in another namespace; 2,000 policies.
type city struct {
	pods     []policy.Pod
	spaces   map[string]map[string]string
	policies []*networkingv1.NetworkPolicy
}

func newCity(b *testing.B) *city {
	b.Helper()
	c := &city{spaces: map[string]map[string]string{}}
	for n := range 500 {
		name := fmt.Sprintf("space-%d", n)
		c.spaces[name] = map[string]string{"kubernetes.io/metadata.name": name, "team": fmt.Sprintf("team-%d", n%25)}
		for i := range 20 {
			c.pods = append(c.pods, citizen(name, n, i))
		}
		for _, spec := range citySpecs(n) {
			np := &networkingv1.NetworkPolicy{}
			if err := yaml.UnmarshalStrict([]byte("spec: "+spec), np); err != nil {
				b.Fatal(err)
			}
			np.Namespace, np.Name = name, fmt.Sprintf("policy-%d", len(c.policies))
			c.policies = append(c.policies, np)
		}
	}
	return c
}

// citizen: every namespace has five applications of four pods each; a tenth of
// all pods have a label that no other has, as those of a StatefulSet do.
func citizen(namespace string, n, i int) policy.Pod {
	labels := map[string]string{"app": fmt.Sprintf("app-%d", i%5), "tier": fmt.Sprint(i % 2), "pod-template-hash": fmt.Sprintf("%08x", n*5+i%5)}
	if i%10 == 9 {
		labels["statefulset.kubernetes.io/pod-name"] = fmt.Sprintf("p-%d", i)
	}
	return policy.Pod{
		Namespace: namespace, Name: fmt.Sprintf("p-%d", i), UID: fmt.Sprintf("%d-%d", n, i), Labels: labels,
		Ports:     []policy.NamedPort{{Name: "http", Protocol: ipproto.TCP, Port: 8080}, {Name: "metrics", Protocol: ipproto.TCP, Port: 9090}},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, byte(n >> 8), byte(n), byte(i + 1)}), netip.MustParseAddr(fmt.Sprintf("fd00::%x:%x", n, i+1))},
		Local:     n%5 == 0 && i == 3,
	}
}

func citySpecs(n int) []string {
	return []string{
		`{podSelector: {}, policyTypes: [Ingress, Egress]}`,
		`{podSelector: {matchLabels: {app: app-3}}, ingress: [{from: [{podSelector: {matchLabels: {tier: "1"}}}], ports: [{port: http}]}, {from: [{namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: space-0}}, podSelector: {matchLabels: {app: app-1}}}], ports: [{port: metrics}]}]}`,
		fmt.Sprintf(`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{namespaceSelector: {matchLabels: {team: team-%d}}}]}, {to: [{namespaceSelector: {}}], ports: [{port: 53, protocol: UDP}]}]}`, n%25),
		fmt.Sprintf(`{podSelector: {}, policyTypes: [Egress], egress: [{to: [{ipBlock: {cidr: 0.0.0.0/0, except: [10.0.0.0/8, 172.16.0.0/12, 192.168.%d.0/24]}}], ports: [{port: 443}]}]}`, n%256),
	}
}

func (c *city) tell(compiler *compile.Compiler) {
	for name, set := range c.spaces {
		compiler.SetNamespace(name, set)
	}
	for _, np := range c.policies {
		_ = compiler.SetPolicy(np)
	}
	for _, p := range c.pods {
		compiler.SetPod(p)
	}
}

func heap() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func BenchmarkFullCompile(b *testing.B) {
	c := newCity(b)
	for b.Loop() {
		compiler := compile.NewCompiler()
		c.tell(compiler)
		b.ReportMetric(float64(written(compiler)), "changes")
	}
}

func BenchmarkMemory(b *testing.B) {
	c := newCity(b)
	var compiler *compile.Compiler
	before := heap()
	for b.Loop() {
		compiler = compile.NewCompiler()
		c.tell(compiler)
		compiler.Changes()
	}
	b.ReportMetric(float64(heap()-before)/(1<<20), "MiB")
	runtime.KeepAlive(c)
	identities, rules := compiler.Sizes()
	b.ReportMetric(float64(identities), "identities")
	b.ReportMetric(float64(rules), "rules")
}

// written counts what the data path is told.
func written(c *compile.Compiler) (n int) {
	for _, ch := range c.Changes() {
		n += ch.Len()
	}
	return n
}

// change measures one change and its undoing, both of which count.
func change(b *testing.B, do, undo func(c *compile.Compiler, known *city)) {
	b.Helper()
	known := newCity(b)
	c := compile.NewCompiler()
	known.tell(c)
	c.Changes()
	for b.Loop() {
		do(c, known)
		n := written(c)
		undo(c, known)
		b.ReportMetric(float64(n+written(c))/2, "changes")
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(2*b.N), "ns/change")
}

func BenchmarkPodOfKnownKindAdded(b *testing.B) {
	change(b, func(c *compile.Compiler, known *city) {
		p := known.pods[8]
		p.Name, p.Addresses = "new", []netip.Addr{netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("fd00:1::1")}
		c.SetPod(p)
	}, func(c *compile.Compiler, known *city) { c.DeletePod(known.pods[8].Namespace, "new") })
}

func BenchmarkPodOfNewKindAdded(b *testing.B) {
	change(b, func(c *compile.Compiler, known *city) {
		p := known.pods[8]
		p.Name, p.Labels = "new", map[string]string{"app": "app-1", "only": "this"}
		p.Addresses = []netip.Addr{netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("fd00:1::1")}
		c.SetPod(p)
	}, func(c *compile.Compiler, known *city) { c.DeletePod(known.pods[8].Namespace, "new") })
}

func BenchmarkLocalPodAdded(b *testing.B) {
	change(b, func(c *compile.Compiler, known *city) {
		p := known.pods[8]
		p.Name, p.Local, p.Addresses = "new", true, []netip.Addr{netip.MustParseAddr("10.200.0.1"), netip.MustParseAddr("fd00:1::1")}
		c.SetPod(p)
	}, func(c *compile.Compiler, known *city) { c.DeletePod(known.pods[8].Namespace, "new") })
}

func BenchmarkLabelChanged(b *testing.B) {
	change(b, func(c *compile.Compiler, known *city) {
		p := known.pods[6]
		p.Labels = map[string]string{"app": "app-1", "tier": "7"}
		c.SetPod(p)
	}, func(c *compile.Compiler, known *city) { c.SetPod(known.pods[6]) })
}

func BenchmarkNamespaceLabelChanged(b *testing.B) {
	change(b, func(c *compile.Compiler, _ *city) {
		c.SetNamespace("space-0", map[string]string{"kubernetes.io/metadata.name": "space-0", "team": "team-24"})
	}, func(c *compile.Compiler, known *city) { c.SetNamespace("space-0", known.spaces["space-0"]) })
}

func BenchmarkPolicyOfThisNodeChanged(b *testing.B) {
	change(b, func(c *compile.Compiler, known *city) {
		np := known.policies[1].DeepCopy()
		np.Spec.Ingress = np.Spec.Ingress[:1]
		_ = c.SetPolicy(np)
	}, func(c *compile.Compiler, known *city) { _ = c.SetPolicy(known.policies[1]) })
}

func BenchmarkPolicyOfOtherNodesChanged(b *testing.B) {
	change(b, func(c *compile.Compiler, known *city) {
		np := known.policies[5].DeepCopy()
		np.Spec.Ingress = np.Spec.Ingress[:1]
		_ = c.SetPolicy(np)
	}, func(c *compile.Compiler, known *city) { _ = c.SetPolicy(known.policies[5]) })
}
