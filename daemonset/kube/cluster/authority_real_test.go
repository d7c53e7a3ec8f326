// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/kubetest"
)

// addon is an account that may write all ConfigMaps and Secrets, as those of many add-ons may.
const addon = `
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: sealane-system, name: addon}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-addon}
rules:
- {apiGroups: [""], resources: [configmaps, secrets], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-addon}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-addon}
subjects: [{kind: ServiceAccount, namespace: sealane-system, name: addon}]
`

// administrator is what makes the account one of those that sealane ca is for.
const administrator = `
apiVersion: rbac.authorization.k8s.io/v1
kind: Role
metadata: {namespace: sealane-system, name: test-administrator}
rules:
- {apiGroups: [sealane.io], resources: [authority], verbs: [administer]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: RoleBinding
metadata: {namespace: sealane-system, name: test-administrator}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: Role, name: test-administrator}
subjects: [{kind: ServiceAccount, namespace: sealane-system, name: addon}]
`

// until repeats what the API server takes up at its own pace.
func until(ctx context.Context, t *testing.T, try func() error, done func(error) bool) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		err := try()
		if done(err) {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it never came about: last answer %v", err)
		}
	}
}

func denied(words string) func(error) bool {
	return func(err error) bool {
		return errors.Is(kube.Wrap("", err), kube.ErrForbidden) && strings.Contains(err.Error(), words)
	}
}

func makeSecret(ctx context.Context, c *Client, name string, kind corev1.SecretType) error {
	s := &corev1.Secret{ObjectMeta: metav1.ObjectMeta{Name: name}, Type: kind}
	if kind == corev1.SecretTypeServiceAccountToken {
		s.Annotations = map[string]string{corev1.ServiceAccountNameKey: "addon"}
	}
	_, err := c.conn.Core.CoreV1().Secrets(kubetest.Namespace).Create(ctx, s, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
	return err
}

// testAuthorityRights: who may write ConfigMaps and Secrets everywhere may not write those that
// roots, revocations and keys are in.
func testAuthorityRights(t *testing.T, r *realCluster) {
	ctx := testContext(t)
	r.Apply(t, addon)
	other := r.client(t, r.Kubeconfig(t, r.Token(t, "addon", "")))
	maps := other.conn.Core.CoreV1().ConfigMaps(kubetest.Namespace)
	rule := denied("administer authority.sealane.io")
	until(ctx, t, func() error { return makeSecret(ctx, other, "sealane-ca-probe", corev1.SecretTypeOpaque) }, rule)
	record, err := r.admin.Record(ctx)
	if err != nil {
		t.Fatal(err)
	}
	record.List = []byte("mine")
	_, errRecord := other.PublishRecord(ctx, record)
	_, errPatch := maps.Patch(ctx, TrustConfigMap, types.MergePatchType, []byte(`{"data":{"bundle.pem":"mine"}}`), metav1.PatchOptions{})
	for what, err := range map[string]error{
		"publish a bundle": other.PublishTrust(ctx, Trust{Bundle: []byte("mine")}),
		"patch a bundle":   errPatch,
		"ask for a root":   other.RequestRootRotation(ctx, time.Now()),
		"publish a list":   errRecord,
		"delete the list":  maps.Delete(ctx, RevocationConfigMap, metav1.DeleteOptions{}),
		"delete them all":  maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{FieldSelector: "metadata.name=" + TrustConfigMap}),
		"delete the CA":    other.conn.Core.CoreV1().Secrets(kubetest.Namespace).Delete(ctx, "sealane-ca", metav1.DeleteOptions{}),
	} {
		if !rule(err) {
			t.Errorf("%s: got error %v, want the policy's", what, err)
		}
	}
	if _, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "its-own"}}, metav1.CreateOptions{}); err != nil {
		t.Errorf("its own ConfigMap: %v", err)
	}
	controller := r.client(t, r.Kubeconfig(t, r.Token(t, "sealane-controller", "")))
	if err := controller.PublishTrust(ctx, Trust{Bundle: []byte("theirs")}); err != nil {
		t.Errorf("the controller publishes a bundle: %v", err)
	}
	if _, err := controller.PublishRecord(ctx, record); err != nil {
		t.Errorf("the controller publishes a list: %v", err)
	}
	if err := makeSecret(ctx, controller, "sealane-ca-root", corev1.SecretTypeOpaque); err != nil {
		t.Errorf("the controller keeps a root: %v", err)
	}
	for name, kind := range map[string]corev1.SecretType{"sealane-ca-root": corev1.SecretTypeServiceAccountToken, "any": corev1.SecretTypeOpaque} {
		if err := makeSecret(ctx, controller, name, kind); !denied("of type Opaque")(err) {
			t.Errorf("the controller makes %s of type %s: got error %v, want the policy's", name, kind, err)
		}
	}
	r.Apply(t, administrator)
	until(ctx, t, func() error { return other.RequestRootRotation(ctx, time.Now()) }, func(err error) bool { return err == nil })
}

// testNamespaceDeletion: the policy keeps nobody from cleaning up.
func testNamespaceDeletion(t *testing.T, r *realCluster) {
	ctx := testContext(t)
	other := r.client(t, r.Kubeconfig(t, r.Token(t, "addon", "")))
	r.Kubectl(t, "", "-n", kubetest.Namespace, "delete", "rolebinding", "test-administrator")
	r.Kubectl(t, "", "delete", "namespace", kubetest.Namespace, "--wait=false")
	maps := other.conn.Core.CoreV1().ConfigMaps(kubetest.Namespace)
	until(ctx, t, func() error { return maps.Delete(ctx, TrustConfigMap, metav1.DeleteOptions{}) }, func(err error) bool { return err == nil })
}

// testEventPolicy: an agent's Events are its node's, and it cannot touch those of others.
func testEventPolicy(t *testing.T, r *realCluster, agent1, agent2 *Client) {
	ctx := testContext(t)
	event := func(name, component, host string) *corev1.Event {
		return &corev1.Event{
			ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"}, Source: corev1.EventSource{Component: component, Host: host},
			InvolvedObject: corev1.ObjectReference{Kind: "Node", Name: "n2"}, Reason: "ContinuityBroken", Message: "m",
		}
	}
	create := func(c *Client, e *corev1.Event) error {
		_, err := c.conn.Core.CoreV1().Events("default").Create(ctx, e, metav1.CreateOptions{})
		return err
	}
	rule := denied("may write Events of source sealaned on that node only")
	until(ctx, t, func() error { return create(agent1, event("forged", "kubelet", "n1")) }, rule)
	patch := func(c *Client, name, change string) error {
		_, err := c.conn.Core.CoreV1().Events("default").Patch(ctx, name, types.MergePatchType, []byte(change), metav1.PatchOptions{})
		return err
	}
	for _, err := range []error{create(agent1, event("of-n1", "sealaned", "n1")), create(agent2, event("of-n2", "sealaned", "n2")), patch(agent1, "of-n1", `{"count":2}`)} {
		if err != nil {
			t.Errorf("own Event: %v", err)
		}
	}
	for what, err := range map[string]error{
		"of another node":  create(agent1, event("forged", "sealaned", "n2")),
		"of no node":       create(agent1, event("forged", "sealaned", "")),
		"another's":        patch(agent1, "of-n2", `{"message":"all is well"}`),
		"another's, taken": patch(agent1, "of-n2", `{"source":{"host":"n1"}}`),
		"own, given away":  patch(agent1, "of-n1", `{"source":{"host":"n2"}}`),
	} {
		if !rule(err) {
			t.Errorf("Event %s: got error %v, want the policy's", what, err)
		}
	}
	long := event("long", "sealaned", "n1")
	long.Message = strings.Repeat("x", 1025)
	if err := create(agent1, long); !denied("1024 characters")(err) {
		t.Errorf("long message: %v", err)
	}
}

// padded is a request of this many bytes.
func padded(o *certv1.CertificateSigningRequest, size int) {
	o.Spec.Request = append(o.Spec.Request, bytes.Repeat([]byte("\n"), size-len(o.Spec.Request))...)
}
