// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

func statement(seq int, more string) keymgr.Signed {
	return keymgr.Signed{
		Payload:   fmt.Appendf(nil, `{"seq":%d,"more":%q}`, seq, more),
		Signature: []byte("signature"), Chain: [][]byte{{1}, {2}},
	}
}

func TestPublishNodeKey(t *testing.T) {
	first := keymgr.NodeID{Name: "n1", UID: "u1"}
	second := keymgr.NodeID{Name: "n1", UID: "u2"}
	for _, tc := range []struct {
		name   string
		before keymgr.Signed
		id     keymgr.NodeID
		next   keymgr.Signed
		want   error
		writes int
	}{
		{"newer replaces", statement(5, ""), first, statement(6, ""), nil, 1},
		{"same is not written", statement(5, ""), first, statement(5, ""), nil, 0},
		{"older is refused", statement(5, ""), first, statement(4, ""), ErrNewer, 0},
		{"same sequence, other statement", statement(5, ""), first, statement(5, "x"), ErrFork, 0},
		{"older of the node's successor", statement(5, ""), second, statement(4, ""), nil, 1},
		{"renewed certificate, same statement", statement(5, ""), first, keymgr.Signed{
			Payload: statement(5, "").Payload, Signature: []byte("signature"), Chain: [][]byte{{9}},
		}, nil, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, api := testContext(t), newFake(t)
			if err := api.PublishNodeKey(ctx, first, tc.before); err != nil {
				t.Fatal(err)
			}
			api.keys.ClearActions()
			if err := api.PublishNodeKey(ctx, tc.id, tc.next); !errors.Is(err, tc.want) {
				t.Fatalf("got error %v, want %v", err, tc.want)
			}
			var writes int
			for _, action := range api.keys.Actions() {
				if action.GetVerb() != "get" {
					writes++
				}
			}
			if writes != tc.writes {
				t.Errorf("got %d writes, want %d: %v", writes, tc.writes, api.keys.Actions())
			}
			want, wantID := tc.next, tc.id
			if tc.want != nil {
				want, wantID = tc.before, first
			}
			keys, err := api.NodeKeys(ctx)
			if err != nil || len(keys) != 1 {
				t.Fatalf("got %d nodekeys, error %v", len(keys), err)
			}
			if diff := cmp.Diff(want, signedOf(keys[0].Spec)); diff != "" {
				t.Errorf("published (-want +got):\n%s", diff)
			}
			if keys[0].Name != wantID.Name || keys[0].Spec.NodeUID != wantID.UID {
				t.Errorf("nodekey %s has nodeUID %q, want that of %v", keys[0].Name, keys[0].Spec.NodeUID, wantID)
			}
		})
	}
}

func TestPublishNodeKeyRefusesMalformedStatement(t *testing.T) {
	for _, payload := range []string{"", "{}", `{"seq":0}`, `{"seq":-1}`, `{"seq":18446744073709551615}`, `[]`} {
		ctx, api := testContext(t), newFake(t)
		if err := api.PublishNodeKey(ctx, keymgr.NodeID{Name: "n1", UID: "u1"}, keymgr.Signed{Payload: []byte(payload)}); err == nil {
			t.Errorf("payload %q was published", payload)
		}
		if actions := api.keys.Actions(); len(actions) != 0 {
			t.Errorf("payload %q caused %v", payload, actions)
		}
	}
}

// conflictOnce makes the first write of a kind fail as if another writer had
// been faster.
func conflictOnce(api *fakeAPI, verb string) *int {
	tries := new(int)
	api.keys.PrependReactor(verb, "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		*tries++
		resource := v1alpha1.GroupVersion().WithResource(v1alpha1.NodeKeyResource).GroupResource()
		return *tries == 1, nil, apierrors.NewConflict(resource, "n1", errors.New("changed"))
	})
	return tries
}

func TestPublishNodeKeyRetriesConflicts(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	id := keymgr.NodeID{Name: "n1", UID: "u1"}
	if err := api.PublishNodeKey(ctx, id, statement(1, "")); err != nil {
		t.Fatal(err)
	}
	tries := conflictOnce(api, "update")
	if err := api.PublishNodeKey(ctx, id, statement(2, "")); err != nil {
		t.Fatal(err)
	}
	if *tries != 2 {
		t.Errorf("tried %d times, want 2", *tries)
	}
}

func TestPublishStatus(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	if err := api.PublishStatus(ctx, "n1", v1alpha1.NodeKeyStatus{}); !errors.Is(err, kube.ErrNotFound) {
		t.Fatalf("status before a statement: got %v, want ErrNotFound", err)
	}
	if err := api.PublishNodeKey(ctx, keymgr.NodeID{Name: "n1", UID: "u1"}, statement(1, "")); err != nil {
		t.Fatal(err)
	}
	long := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	status := v1alpha1.NodeKeyStatus{
		AcceptedPeers: 2, Lane: v1alpha1.LaneWireGuard,
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionReady, Status: metav1.ConditionTrue, Reason: "Serving", LastTransitionTime: long,
		}},
	}
	if err := api.PublishStatus(ctx, "n1", status); err != nil {
		t.Fatal(err)
	}
	api.keys.ClearActions()

	// The same again, with a younger transition time, is no news.
	status.Conditions[0].LastTransitionTime = metav1.Now()
	if err := api.PublishStatus(ctx, "n1", status); err != nil {
		t.Fatal(err)
	}
	for _, action := range api.keys.Actions() {
		if action.GetVerb() != "get" {
			t.Errorf("unchanged status caused %v", action)
		}
	}
	keys, err := api.NodeKeys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if got := keys[0].Status.Conditions[0].LastTransitionTime; !got.Equal(&long) {
		t.Errorf("transition time %v, want the first one, %v", got, long)
	}
	if keys[0].Spec.Sequence != 1 || keys[0].Status.AcceptedPeers != 2 {
		t.Errorf("got sequence %d, accepted %d, want 1 and 2", keys[0].Spec.Sequence, keys[0].Status.AcceptedPeers)
	}
}

func TestPublishStatusIsBounded(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	if err := api.PublishNodeKey(ctx, keymgr.NodeID{Name: "n1", UID: "u1"}, statement(1, "")); err != nil {
		t.Fatal(err)
	}
	var status v1alpha1.NodeKeyStatus
	for i := range 2 * v1alpha1.MaxRefused {
		status.Refused = append(status.Refused, v1alpha1.RefusedStatement{Node: fmt.Sprint("n", i), Reason: "fork", Count: int64(i + 1)})
	}
	if err := api.PublishStatus(ctx, "n1", status); err != nil {
		t.Fatal(err)
	}
	keys, err := api.NodeKeys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	got := keys[0].Status.Refused
	if len(got) != v1alpha1.MaxRefused || got[0].Count != 2*v1alpha1.MaxRefused {
		t.Errorf("got %d refusals, the first counted %d; want %d, the most frequent first", len(got), got[0].Count, v1alpha1.MaxRefused)
	}
}

func TestDeleteNodeKey(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	if err := api.DeleteNodeKey(ctx, "n1", "u1"); err != nil {
		t.Errorf("delete what never was: %v", err)
	}
	if err := api.PublishNodeKey(ctx, keymgr.NodeID{Name: "n1", UID: "u2"}, statement(1, "")); err != nil {
		t.Fatal(err)
	}
	if err := api.DeleteNodeKey(ctx, "n1", "u1"); err != nil {
		t.Fatal(err)
	}
	if keys, _ := api.NodeKeys(ctx); len(keys) != 1 {
		t.Fatal("deleting the predecessor's nodekey deleted the successor's")
	}
	if err := api.DeleteNodeKey(ctx, "n1", "u2"); err != nil {
		t.Fatal(err)
	}
	if keys, _ := api.NodeKeys(ctx); len(keys) != 0 {
		t.Error("nodekey is still there")
	}
}

// Whoever wrote a higher number into a node's object keeps the node from nothing.
func TestOverwriteNodeKey(t *testing.T) {
	api := newFake(t)
	id := keymgr.NodeID{Name: "n1", UID: "u1"}
	if err := api.OverwriteNodeKey(t.Context(), id, statement(3, "")); err != nil {
		t.Fatal(err)
	}
	if err := api.PublishNodeKey(t.Context(), id, statement(1<<50, "forged")); err != nil {
		t.Fatal(err)
	}
	if err := api.PublishNodeKey(t.Context(), id, statement(4, "")); !errors.Is(err, ErrNewer) {
		t.Fatalf("publish over a higher number: %v, want ErrNewer", err)
	}
	if err := api.OverwriteNodeKey(t.Context(), id, statement(4, "")); err != nil {
		t.Fatal(err)
	}
	if got, err := api.NodeKey(t.Context(), "n1"); err != nil || !got.Equal(statement(4, "")) {
		t.Errorf("object carries %s, %v", got.Payload, err)
	}
}
