// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"fmt"
	"net/netip"
	"runtime"
	"testing"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/policy"
)

// Sizes of the large cluster.
const (
	manySpaces   = 500
	manyPods     = 10_000
	manyPolicies = 2_000
	podsHere     = 100
)

func spaceName(i int) string { return fmt.Sprintf("team-%d", i%manySpaces) }

func podOf(i int) objects.Pod {
	o := objects.Pod{Pod: policy.Pod{
		Namespace: spaceName(i), Name: fmt.Sprintf("pod-%d", i), UID: fmt.Sprintf("u-%d", i), Node: "n2",
		Labels:    map[string]string{"app": fmt.Sprintf("app-%d", i%40), "pod-template-hash": fmt.Sprintf("%x", i%1000), "tier": "x"},
		Addresses: []netip.Addr{netip.AddrFrom4([4]byte{10, 200, byte(i >> 8), byte(i)})},
	}}
	if i < podsHere {
		o.Node = "n1"
	}
	return o
}

// largeCluster is a fake API with many objects, of which podsHere pods are local
// and attached.
func largeCluster(r *rig) {
	for i := range manySpaces {
		r.api.setNamespace(spaceName(i), map[string]string{"kubernetes.io/metadata.name": spaceName(i), "group": fmt.Sprint(i % 10)})
	}
	for i := range manyPods {
		o := podOf(i)
		r.api.setPod(o)
		if i < podsHere {
			r.Restore([]Attachment{{refOf(o), o.Addresses}})
		}
	}
	for i := range manyPolicies {
		r.api.setPolicy(&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: spaceName(i), Name: fmt.Sprintf("p-%d", i)},
			Spec: networkingv1.NetworkPolicySpec{
				PodSelector: metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", i%40)}},
				Ingress: []networkingv1.NetworkPolicyIngressRule{{From: []networkingv1.NetworkPolicyPeer{{
					NamespaceSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"group": fmt.Sprint(i % 10)}},
					PodSelector:       &metav1.LabelSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("app-%d", (i+10)%40)}},
				}}}},
			},
		})
	}
}

// BenchmarkFirstPass is from a synced watch to the tables, without the kernel.
func BenchmarkFirstPass(b *testing.B) {
	for b.Loop() {
		b.StopTimer()
		r := benchRig(b)
		largeCluster(r)
		b.StartTimer()
		r.pass(b.Context())
		b.ReportMetric(float64(len(r.tables.Rules)), "rules")
	}
}

// BenchmarkLabelChange is one pod of another node that gets another label.
func BenchmarkLabelChange(b *testing.B) {
	r := benchRig(b)
	largeCluster(r)
	r.pass(b.Context())
	o := podOf(manyPods - 1)
	labels := []map[string]string{{"app": "app-1"}, {"app": "app-2"}}
	i := 0
	for b.Loop() {
		i++
		o.Labels = labels[i%2]
		r.api.setPod(o)
		r.pass(b.Context())
	}
}

// BenchmarkAttach is one pod of this node that is connected and disconnected, as
// long as the Enforcer has nothing else to do.
func BenchmarkAttach(b *testing.B) {
	r := benchRig(b)
	largeCluster(r)
	o := podOf(0)
	o.Name, o.UID, o.Addresses = "new", "new", nil
	r.api.setPod(o)
	r.pass(b.Context())
	ctx, cancel := context.WithCancel(b.Context())
	ended := make(chan error)
	go func() { ended <- r.Run(ctx) }()
	for b.Loop() {
		if err := r.Attach(ctx, refOf(o), []netip.Addr{addrA}); err != nil {
			b.Fatal(err)
		}
		r.Detach([]netip.Addr{addrA})
	}
	cancel()
	<-ended
}

// BenchmarkMemory is what the Enforcer keeps of a large cluster.
func BenchmarkMemory(b *testing.B) {
	for b.Loop() {
		r := benchRig(b)
		largeCluster(r)
		before := inUse()
		r.pass(b.Context())
		b.ReportMetric(float64(inUse()-before)/1e6, "MB")
		runtime.KeepAlive(r)
	}
}

func inUse() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

func benchRig(b *testing.B) *rig {
	b.Helper()
	api, dp := newFakeAPI(), newFakeDatapath(nil)
	return &rig{Enforcer: New(Config{Node: "n1", Feed: api, Objects: api, Datapath: dp}), api: api, dp: dp}
}

func refOf(o objects.Pod) cni.PodRef {
	return cni.PodRef{Namespace: o.Namespace, Name: o.Name, UID: o.UID}
}
