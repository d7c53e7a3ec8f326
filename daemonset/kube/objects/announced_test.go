// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"errors"
	"net/netip"
	"slices"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
)

func newcomer(name, uid string, addresses ...string) kube.AddressedPod {
	return kube.AddressedPod{Namespace: "shop", Name: name, UID: uid, Addresses: addrs(addresses...)}
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
	if err := api.PublishAddresses(ctx, "n2", []kube.AddressedPod{
		newcomer("web", "u-1", "10.244.2.5", "10.244.1.5"), newcomer("told", "u-1", "10.244.2.6"), newcomer("elsewhere", "u-1", "10.244.1.7"),
		newcomer("another", "u-0", "10.244.2.7"), newcomer("hosted", "u-1", "10.244.2.8"), newcomer("static", "kubelets", "10.244.2.10"),
	}); err != nil {
		t.Fatal(err)
	}
	all := []string{"web", "told", "elsewhere", "another", "hosted", "static"}
	var refs []kube.Ref
	for _, name := range all {
		refs = append(refs, podRef(name))
	}
	awaitDirty(ctx, t, o, refs...)
	want := map[string]Pod{}
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
	if err := api.PublishAddresses(ctx, "n2", []kube.AddressedPod{newcomer("static", "kubelets", "10.244.2.10"), newcomer("late", "u-1", "10.244.2.11")}); err != nil {
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
	if !errors.Is(err, kube.ErrBadConfig) {
		t.Errorf("error is %v", err)
	}
	if diff := cmp.Diff(kube.ByRef([]kube.AddressedPod{newcomer("web", "", "10.244.1.5")}), pods, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
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
	if err := api.PublishAddresses(ctx, "n1", []kube.AddressedPod{newcomer("web", "u-1", "10.244.1.5")}); !errors.Is(err, kube.ErrNotFound) {
		t.Errorf("publishing fails by %v", err)
	}
}
