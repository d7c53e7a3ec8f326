// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/keymgr/ca"
)

var _ ca.Store = (*SecretStore)(nil)

func TestSecretStoreLetsOneOfTwoWritersThrough(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	a, b := api.SecretStore("sealane-ca"), api.SecretStore("sealane-ca")
	empty, err := a.Load(ctx)
	if err != nil || empty.Version != "" || len(empty.Files) != 0 {
		t.Fatalf("nothing stored: got %+v, error %v", empty, err)
	}
	files := map[string][]byte{"root.crt": []byte("1")}
	if err := a.Save(ctx, ca.Stored{Files: files}); err != nil {
		t.Fatal(err)
	}
	if err := b.Save(ctx, ca.Stored{Files: map[string][]byte{"root.crt": []byte("2")}}); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("second first writer: got error %v, want ErrConflict", err)
	}
	got, err := b.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(files, got.Files); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	stale := ca.Stored{Files: map[string][]byte{"root.crt": []byte("3")}, Version: got.Version + "0"}
	if err := a.Save(ctx, stale); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("stale version: got error %v, want ErrConflict", err)
	}
	if err := api.core.CoreV1().Secrets(DefaultNamespace).Delete(ctx, "sealane-ca", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if err := a.Save(ctx, ca.Stored{Files: files, Version: "7"}); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("deleted meanwhile: got error %v, want ErrConflict", err)
	}
}

func TestSecretStoreKeepsWhatOthersPutOnTheSecret(t *testing.T) {
	ctx := testContext(t)
	api := newFake(t, &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: "s", ResourceVersion: "1", Labels: map[string]string{"backup": "yes"}},
		Data:       map[string][]byte{"old": []byte("o")},
	})
	store := api.SecretStore("s")
	have, err := store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	have.Files = map[string][]byte{"new": []byte("n")}
	if err := store.Save(ctx, have); err != nil {
		t.Fatal(err)
	}
	got, err := api.core.CoreV1().Secrets(DefaultNamespace).Get(ctx, "s", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got.Labels["backup"] != "yes" || !cmp.Equal(got.Data, have.Files) {
		t.Errorf("got labels %v and data %v", got.Labels, got.Data)
	}
}
