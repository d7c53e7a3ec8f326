// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/api/v1alpha1"
)

// published returns what the API server has of a node.
func published(ctx context.Context, t *testing.T, api *fakeAPI, node string) []v1alpha1.PodAddress {
	t.Helper()
	list, err := api.podAddresses.List(ctx, metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range list.Items {
		if p.Name == node {
			return p.Pods
		}
	}
	return nil
}

func newcomer(name, uid string, addresses ...string) AddressedPod {
	return AddressedPod{Namespace: "shop", Name: name, UID: uid, Addresses: addrs(addresses...)}
}

func TestPublishAddresses(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	for _, step := range []struct {
		pods []AddressedPod
		want []v1alpha1.PodAddress
	}{
		{nil, nil},
		{[]AddressedPod{newcomer("web", "u-1", "10.244.1.5", "fd00:1::5")}, []v1alpha1.PodAddress{{Namespace: "shop", Name: "web", UID: "u-1", IPs: []string{"10.244.1.5", "fd00:1::5"}}}},
		{[]AddressedPod{newcomer("db", "", "10.244.1.6")}, []v1alpha1.PodAddress{{Namespace: "shop", Name: "db", IPs: []string{"10.244.1.6"}}}},
		{nil, []v1alpha1.PodAddress{}},
	} {
		if err := api.PublishAddresses(ctx, "n1", step.pods); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(step.want, published(ctx, t, api, "n1")); diff != "" {
			t.Errorf("after %v:\n%s", step.pods, diff)
		}
	}
	var many []AddressedPod
	for i := range v1alpha1.MaxPodAddresses + 5 {
		many = append(many, newcomer(strconv.Itoa(i), "", "10.244.1.6"))
	}
	if err := api.PublishAddresses(ctx, "n2", many); err != nil {
		t.Fatal(err)
	}
	if n := len(published(ctx, t, api, "n2")); n != v1alpha1.MaxPodAddresses {
		t.Errorf("%d pods are told of, want %d", n, v1alpha1.MaxPodAddresses)
	}
}

func TestPodIsKnownByItsNodesWord(t *testing.T) {
	hosted := makePod("hosted", "n2")
	hosted.Spec.HostNetwork = true
	static := makePod("static", "n2")
	static.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "kubelets"}
	ctx, api, o := following(t,
		makeNode("n1", "u1", "10.244.1.0/24"), makeNode("n2", "u2", "10.244.2.0/24"),
		makePod("web", "n2"), makePod("told", "n2", "10.244.2.9"), makePod("elsewhere", "n1"), makePod("another", "n2"), hosted, static,
	)
	o.Take()
	if err := api.PublishAddresses(ctx, "n2", []AddressedPod{
		newcomer("web", "u-1", "10.244.2.5", "10.244.1.5"), newcomer("told", "u-1", "10.244.2.6"), newcomer("elsewhere", "u-1", "10.244.1.7"),
		newcomer("another", "u-0", "10.244.2.7"), newcomer("hosted", "u-1", "10.244.2.8"), newcomer("static", "kubelets", "10.244.2.10"),
	}); err != nil {
		t.Fatal(err)
	}
	all := []string{"web", "told", "elsewhere", "another", "hosted", "static"}
	var refs []Ref
	for _, name := range all {
		refs = append(refs, podRef(name))
	}
	awaitDirty(ctx, t, o, refs...)
	want := map[string]PodObject{}
	for _, name := range all {
		want[name], _ = o.Pod("shop", name)
	}
	got := map[string][]string{}
	for name, pod := range want {
		for _, a := range pod.Addresses {
			got[name] = append(got[name], a.String())
		}
		if announced := name == "web" || name == "static"; pod.Announced != announced {
			t.Errorf("%s: announced %v, want %v", name, pod.Announced, announced)
		}
	}
	if diff := cmp.Diff(map[string][]string{"web": {"10.244.2.5"}, "told": {"10.244.2.9"}, "static": {"10.244.2.10"}}, got); diff != "" {
		t.Errorf("addresses of pods:\n%s", diff)
	}

	// The status says it now, and something else changes in the list.
	if _, err := api.core.CoreV1().Pods("shop").Update(ctx, makePod("web", "n2", "10.244.2.5"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitDirty(ctx, t, o, podRef("web"))
	if pod, _ := o.Pod("shop", "web"); pod.Announced || !slices.Equal(pod.Addresses, addrs("10.244.2.5")) {
		t.Errorf("with its status the pod is %+v", pod)
	}
	if err := api.PublishAddresses(ctx, "n2", []AddressedPod{newcomer("static", "kubelets", "10.244.2.10"), newcomer("late", "u-1", "10.244.2.11")}); err != nil {
		t.Fatal(err)
	}
	awaitDirty(ctx, t, o, podRef("web"), podRef("told"), podRef("elsewhere"), podRef("another"), podRef("hosted"), podRef("late"))
	if _, err := api.core.CoreV1().Pods("shop").Create(ctx, makePod("late", "n2"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitDirty(ctx, t, o, podRef("late"))
	if pod, _ := o.Pod("shop", "late"); !slices.Equal(pod.Addresses, addrs("10.244.2.11")) {
		t.Errorf("a pod that comes after its node's word has %v", pod.Addresses)
	}
}

func TestMalformedAddressesAreLeftOut(t *testing.T) {
	pods, err := addressedPodsOf(&v1alpha1.PodAddresses{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Pods:       []v1alpha1.PodAddress{{Namespace: "shop", Name: "web", IPs: []string{"10.244.1.300", "::ffff:10.244.1.5"}}},
	})
	if !errors.Is(err, ErrBadConfig) {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff(byRef([]AddressedPod{newcomer("web", "", "10.244.1.5")}), pods, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Error(diff)
	}
}

// TestObjectsDoWithoutAddresses is with an API server that does not have the
// resource, as after an upgrade by Helm, which leaves CRDs alone.
func TestObjectsDoWithoutAddresses(t *testing.T) {
	api := newFake(t, makeNode("n1", "u1", "10.244.1.0/24"), makePod("web", "n1", "10.244.1.5"))
	api.keys.PrependReactor("*", v1alpha1.PodAddressesResource, func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewNotFound(v1alpha1.GroupVersion().WithResource(v1alpha1.PodAddressesResource).GroupResource(), "")
	})
	ctx, o := api.follow(t)
	for !o.Synced() {
		awaitChange(ctx, t, o)
	}
	if pod, _ := o.Pod("shop", "web"); len(pod.Addresses) != 1 {
		t.Errorf("the pod has %v", pod.Addresses)
	}
	if err := api.PublishAddresses(ctx, "n1", []AddressedPod{newcomer("web", "u-1", "10.244.1.5")}); !errors.Is(err, ErrNotFound) {
		t.Errorf("publishing fails by %v", err)
	}
}

func TestBeyond(t *testing.T) {
	pod := func(name, uid string, addresses ...string) AddressedPod {
		p := AddressedPod{Namespace: "n", Name: name, UID: uid}
		for _, a := range addresses {
			p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
		}
		return p
	}
	same, twice := pod("same", "1", "10.0.0.1", "fd00::1"), pod("twice", "2", "10.0.0.2")
	listed := []AddressedPod{pod("twice", "0", "10.0.0.9"), twice, same, pod("other UID", "3", "10.0.0.3"), pod("other order", "4", "10.0.0.4", "fd00::4")}
	beyond := []AddressedPod{pod("new", "5", "10.0.0.5"), pod("other UID", "6", "10.0.0.3"), pod("other order", "4", "fd00::4", "10.0.0.4")}
	all := slices.Concat([]AddressedPod{same}, beyond, []AddressedPod{twice})
	before := slices.Clone(all)
	if got := Beyond(all, listed); !slices.EqualFunc(got, beyond, AddressedPod.Equal) {
		t.Errorf("beyond: %+v, want %+v", got, beyond)
	}
	if !slices.EqualFunc(all, before, AddressedPod.Equal) {
		t.Errorf("the list was changed: %+v", all)
	}
	if got := Beyond(nil, listed); len(got) != 0 {
		t.Errorf("beyond of nothing: %+v", got)
	}
}
