// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/api/v1alpha1"
)

// published returns what the API server has of a node.
func published(ctx context.Context, t *testing.T, api *fakeAPI, node string) []v1alpha1.PodAddress {
	t.Helper()
	list, err := api.conn.PodAddresses.List(ctx, metav1.ListOptions{})
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

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
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
