// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package report

import (
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sealane/sealane/daemonset/kube"
)

func TestIncompleteIsToldOfTheNode(t *testing.T) {
	told := &events{}
	a := Policies{Node: "n1", Events: told, Nodes: func() []kube.Node { return []kube.Node{{Name: "n0", UID: "u0"}, {Name: "n1", UID: "u1"}} }}
	a.Incomplete(t.Context(), errors.New("table is full"))
	want := events{{Kind: kube.KindNode, Name: "n1", UID: "u1", Type: kube.EventWarning, Reason: "EnforcementIncomplete", Message: "table is full"}}
	if diff := cmp.Diff(want, *told); diff != "" {
		t.Error(diff)
	}
}

// TestOneNodeTellsOfAPolicy: whichever it is, one that is ready; and not always
// the same one.
func TestOneNodeTellsOfAPolicy(t *testing.T) {
	all := []kube.Node{{Name: "n1", Ready: true}, {Name: "n2", Ready: true}, {Name: "n3"}, {Name: "n4", Ready: true}}
	speakers := map[string]int{}
	for i := range 30 {
		p := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db", UID: types.UID(fmt.Sprint("u", i))}}
		told := &events{}
		for _, n := range all {
			if !n.Ready {
				continue
			}
			before := len(*told)
			a := Policies{Node: n.Name, Events: told, Nodes: func() []kube.Node { return append([]kube.Node(nil), all...) }}
			a.Malformed(t.Context(), p, errors.New("ingress[0]: no such thing"))
			speakers[n.Name] += len(*told) - before
		}
		want := events{{
			Kind: kube.KindPolicy, Namespace: "shop", Name: "db", UID: string(p.UID), Type: kube.EventWarning, Reason: "PolicyMalformed",
			Message: "it isolates what it selects, and what is malformed allows nothing: ingress[0]: no such thing",
		}}
		if diff := cmp.Diff(want, *told); diff != "" {
			t.Fatal(diff)
		}
	}
	if len(speakers) != 3 || speakers["n1"] == 0 || speakers["n2"] == 0 || speakers["n4"] == 0 {
		t.Errorf("told by %v", speakers)
	}
}
