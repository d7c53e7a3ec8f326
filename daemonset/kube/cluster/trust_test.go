// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube"
)

func TestPublishTrust(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	one := Trust{Bundle: []byte("one")}
	all := Trust{Bundle: []byte("two"), History: []byte("[]"), Renewal: []byte("{1}"), Authority: []byte("{2}")}
	less := Trust{Bundle: []byte("two"), Authority: []byte("{2}")}
	for _, want := range []Trust{one, one, all, all, less} {
		if err := api.PublishTrust(ctx, want); err != nil {
			t.Fatal(err)
		}
		got, err := api.Trust(ctx)
		if diff := cmp.Diff(want, got, cmpopts.EquateEmpty()); err != nil || diff != "" {
			t.Errorf("error %v, difference:\n%s", err, diff)
		}
	}
	var writes int
	for _, action := range api.core.Actions() {
		if verb := action.GetVerb(); verb == "create" || verb == "update" {
			writes++
		}
	}
	if writes != 3 {
		t.Errorf("got %d writes for three different contents", writes)
	}
}

// The request stays while the controller publishes, and what others keep there too.
func TestRequestRootRotation(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	at := time.Date(2026, 1, 2, 3, 4, 5, 6, time.FixedZone("east", 3600))
	if err := api.RequestRootRotation(ctx, at); err != nil {
		t.Fatal(err)
	}
	maps := api.core.CoreV1().ConfigMaps(kube.DefaultNamespace)
	object, err := maps.Get(ctx, TrustConfigMap, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	object.Data = map[string]string{"other": "thing"}
	if _, err := maps.Update(ctx, object, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := api.PublishTrust(ctx, Trust{Bundle: []byte("one")}); err != nil {
		t.Fatal(err)
	}
	got, err := api.Trust(ctx)
	if err != nil || got.Request != "2026-01-02T02:04:05Z" || string(got.Bundle) != "one" {
		t.Errorf("got %+v, error %v", got, err)
	}
	if object, err = maps.Get(ctx, TrustConfigMap, metav1.GetOptions{}); err != nil || object.Data["other"] != "thing" {
		t.Errorf("got %v, error %v", object.Data, err)
	}
}
