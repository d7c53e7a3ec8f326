// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"errors"
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sealane/sealane/daemonset/kube"
)

// shop is a cluster in which two pods claim one address, and a third one an
// address that its node cannot give.
func shop() []runtime.Object {
	node := makeNode("n1", "u1", "10.244.1.0/24")
	node.Status.Addresses = []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: "172.30.0.11"}}
	older, newer := makePod("older", "n1", "10.244.1.5"), makePod("newer", "n1", "10.244.1.5")
	newer.CreationTimestamp = metav1.NewTime(time.Date(2026, 11, 22, 9, 0, 0, 0, time.UTC))
	policy := func(namespace, name string) *networkingv1.NetworkPolicy {
		return &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, UID: "u-1"}}
	}
	return []runtime.Object{
		node, older, newer, makePod("thief", "n1", "10.244.2.6"),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}, Spec: corev1.ServiceSpec{ClusterIP: "10.96.0.9", ClusterIPs: []string{"10.96.0.9", "fd00:96::9"}}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "headless"}, Spec: corev1.ServiceSpec{ClusterIP: "None", ClusterIPs: []string{"None"}}},
		policy("shop", "b"), policy("shop", "a"), policy("other", "c"),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}}},
	}
}

func TestWhoseAddress(t *testing.T) {
	_, _, o := following(t, shop()...)
	at := netip.MustParseAddr
	if p, ok := o.PodAt(at("10.244.1.5")); !ok || p.Name != "newer" {
		t.Errorf("pod %q, %v", p.Name, ok)
	}
	for _, a := range []string{"10.244.2.6", "10.244.1.6", "172.30.0.11"} {
		if p, ok := o.PodAt(at(a)); ok {
			t.Errorf("%s is of pod %s", a, p.Name)
		}
	}
	if n, ok := o.NodeAt(at("172.30.0.11")); !ok || n != "n1" {
		t.Errorf("node %q, %v", n, ok)
	}
	if n, ok := o.NodeAt(at("10.244.1.5")); ok {
		t.Errorf("a pod's address is of node %s", n)
	}
	if diff := cmp.Diff(addrs("172.30.0.11"), o.NodeAddresses("n1"), cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" {
		t.Error(diff)
	}
	if s, ok := o.ServiceAt(at("fd00:96::9")); !ok || s != "shop/db" {
		t.Errorf("service %q, %v", s, ok)
	}
	if s, ok := o.ServiceAt(at("10.96.0.8")); ok {
		t.Errorf("service %q", s)
	}
	var names []string
	for _, p := range o.Policies("shop") {
		names = append(names, p.Name+" "+string(p.UID))
	}
	if diff := cmp.Diff([]string{"a u-1", "b u-1"}, names); diff != "" {
		t.Error(diff)
	}
}

func TestAskWhoseAddress(t *testing.T) {
	api, ctx := newFake(t, shop()...), testContext(t)
	if p, err := api.PodObjectAt(ctx, netip.MustParseAddr("10.244.1.5")); err != nil || p.Name != "newer" {
		t.Errorf("pod %q, error %v", p.Name, err)
	}
	if _, err := api.PodObjectAt(ctx, netip.MustParseAddr("10.244.2.6")); !errors.Is(err, kube.ErrNotFound) {
		t.Errorf("of an address that the node cannot give: error %v", err)
	}
	if labels, err := api.NamespaceLabels(ctx, "shop"); err != nil || labels["team"] != "a" {
		t.Errorf("labels %v, error %v", labels, err)
	}
	if _, err := api.NamespaceLabels(ctx, "nowhere"); !errors.Is(err, kube.ErrNotFound) {
		t.Errorf("of no namespace: error %v", err)
	}
	if found, err := api.Policies(ctx, "shop"); err != nil || len(found) != 2 {
		t.Errorf("%d policies, error %v", len(found), err)
	}
}
