// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

func TestReadPublished(t *testing.T) {
	ctx := testContext(t)
	bundle := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: kube.DefaultNamespace, Name: TrustConfigMap}, Data: map[string]string{TrustBundleKey: "PEM\n"},
	}
	api := newFake(t, bundle)
	if got, err := api.TrustBundle(ctx); string(got) != "PEM" || err != nil {
		t.Errorf("bundle %q, error %v", got, err)
	}
	want := keymgr.Signed{Payload: []byte(`{"seq":7}`), Signature: []byte("12345678"), Chain: [][]byte{{1}, {2}}}
	if err := api.PublishNodeKey(ctx, keymgr.NodeID{Name: "n1", UID: "u1"}, want); err != nil {
		t.Fatal(err)
	}
	got, err := api.NodeKey(ctx, "n1")
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("error %v, statement (-want +got):\n%s", err, diff)
	}
	_, errKey := api.NodeKey(ctx, "n2")
	_, errBundle := newFake(t).TrustBundle(ctx)
	if !errors.Is(errKey, kube.ErrNotFound) || !errors.Is(errBundle, kube.ErrNotFound) {
		t.Errorf("errors %v and %v, want twice ErrNotFound", errKey, errBundle)
	}
}
