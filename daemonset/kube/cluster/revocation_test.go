// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

var n3 = Revocation{
	Node: keymgr.NodeID{Name: "n3", UID: "u3"}, Reason: keymgr.ReasonKeyCompromise, Message: "stolen",
}

func TestRevocationIsGivenSeenAndTakenBack(t *testing.T) {
	api := newFake(t)
	ctx, w := watching(t, api, WatchConfig{Revocations: true})
	given, err := api.CreateRevocation(ctx, n3)
	if err != nil {
		t.Fatal(err)
	}
	want := n3
	want.Name = "u3"
	if diff := cmp.Diff(want, given); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
	if _, err := api.CreateRevocation(ctx, n3); !errors.Is(err, kube.ErrConflict) {
		t.Errorf("given twice: %v", err)
	}
	s := await(ctx, t, w, func(s Snapshot) bool { return len(s.Orders) == 1 })
	if diff := cmp.Diff(want, s.Orders[0]); diff != "" {
		t.Errorf("order in the snapshot (-want +got):\n%s", diff)
	}

	given.Status = RevocationStatus{
		Number: 1787400000123, RevokedAt: time.Unix(1787400000, 0), Keys: []keymgr.Hash{{1, 2}},
		Serials: []keymgr.CertificateSerial{{Issuer: "CN=x", Serial: "a1"}},
	}
	for range 2 { // the second time there is nothing to write
		if err := api.ReportRevocation(ctx, given); err != nil {
			t.Fatal(err)
		}
	}
	var writes int
	for _, action := range api.keys.Actions() {
		if action.GetVerb() == "update" {
			writes++
		}
	}
	got, err := api.Revocation(ctx, "u3")
	if err != nil || writes != 1 {
		t.Fatalf("%d writes, error %v", writes, err)
	}
	if diff := cmp.Diff(given, got); diff != "" || !got.Status.Listed() {
		t.Errorf("after the report (-want +got):\n%s", diff)
	}

	if all, err := api.Revocations(ctx); err != nil || len(all) != 1 {
		t.Errorf("listed %v, %v", all, err)
	}
	if err := api.DeleteRevocation(ctx, "u3"); err != nil {
		t.Fatal(err)
	}
	if err := api.DeleteRevocation(ctx, "u3"); !errors.Is(err, kube.ErrNotFound) {
		t.Errorf("taken back twice: %v", err)
	}
	await(ctx, t, w, func(s Snapshot) bool { return len(s.Orders) == 0 })
	if err := api.ReportRevocation(ctx, given); !errors.Is(err, kube.ErrNotFound) {
		t.Errorf("reported on an order that is gone: %v", err)
	}
}

func TestReportLeavesTheSuccessorAlone(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	given, err := api.CreateRevocation(ctx, n3)
	if err != nil {
		t.Fatal(err)
	}
	given.UID, given.Status.Number = "of an earlier order", 7
	if err := api.ReportRevocation(ctx, given); err != nil {
		t.Fatal(err)
	}
	if got, err := api.Revocation(ctx, "u3"); err != nil || got.Status.Listed() {
		t.Errorf("got %+v, %v", got, err)
	}
}

func TestMalformedRevocation(t *testing.T) {
	for name, o := range map[string]v1alpha1.Revocation{
		"no node": {},
		"hash": {
			Spec:   v1alpha1.RevocationSpec{NodeName: "n", NodeUID: "u"},
			Status: v1alpha1.RevocationStatus{KeyHashes: []string{"xy"}},
		},
	} {
		if _, err := revocationOf(&o); !errors.Is(err, kube.ErrBadConfig) {
			t.Errorf("%s: %v", name, err)
		}
	}
	plain, err := revocationOf(&v1alpha1.Revocation{Spec: v1alpha1.RevocationSpec{NodeName: "n", NodeUID: "u"}})
	if err != nil || plain.Reason != keymgr.ReasonUnspecified {
		t.Errorf("without a reason: %+v, %v", plain, err)
	}
}

func TestPublishRecord(t *testing.T) {
	trust := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: kube.DefaultNamespace, Name: TrustConfigMap},
		Data:       map[string]string{TrustBundleKey: "bundle"},
	}
	api := newFake(t, trust)
	// The fake server counts no versions.
	api.core.PrependReactor("create", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		a.(clienttesting.CreateAction).GetObject().(*corev1.ConfigMap).ResourceVersion = "1"
		return false, nil, nil
	})
	api.core.PrependReactor("update", "configmaps", func(a clienttesting.Action) (bool, runtime.Object, error) {
		object := a.(clienttesting.UpdateAction).GetObject().(*corev1.ConfigMap)
		object.ResourceVersion += "+"
		return false, nil, nil
	})
	ctx, w := watching(t, api, WatchConfig{})
	if s, _ := w.Snapshot(); s.Revoked.Version != "" {
		t.Errorf("before: %+v", s.Revoked)
	}
	first, err := api.PublishRecord(ctx, RevocationRecord{List: []byte("one"), CRL: []byte{1}})
	if err != nil || first.Version != "1" {
		t.Fatalf("published %+v, %v", first, err)
	}
	next := first
	next.List, next.CRL = []byte("two"), nil
	if next, err = api.PublishRecord(ctx, next); err != nil || next.Version == first.Version {
		t.Fatalf("published %+v, %v", next, err)
	}
	s := await(ctx, t, w, func(s Snapshot) bool { return string(s.Revoked.List) == "two" })
	if len(s.Revoked.CRL) != 0 || string(s.Bundle) != "bundle" {
		t.Errorf("got record %+v and bundle %q", s.Revoked, s.Bundle)
	}
	if _, err := api.PublishRecord(ctx, RevocationRecord{List: []byte("three")}); !errors.Is(err, kube.ErrConflict) {
		t.Errorf("a writer that knew of no record: %v", err)
	}
}

func TestNotifyTellsEverybody(t *testing.T) {
	api := newFake(t)
	ctx, w := watching(t, api, WatchConfig{})
	other := make(chan struct{}, 1)
	w.Notify(other)
	<-other // what came before
	await(ctx, t, w, func(Snapshot) bool { return true })
	if _, err := api.PublishRecord(ctx, RevocationRecord{List: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	for _, c := range []<-chan struct{}{other, w.Changed()} {
		select {
		case <-c:
		case <-ctx.Done():
			t.Fatal("not told")
		}
	}
}
