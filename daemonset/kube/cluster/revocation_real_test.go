// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"errors"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

// testRevocationRights: an agent reads the list and writes none of it, neither
// with the roles of the chart nor where somebody has given it all rights.
func testRevocationRights(t *testing.T, r *realCluster, agent *Client) {
	ctx := testContext(t)
	order := Revocation{Node: r.n2, Reason: keymgr.ReasonKeyCompromise}
	given, err := r.admin.CreateRevocation(ctx, order)
	if err != nil {
		t.Fatal(err)
	}
	record, err := r.admin.PublishRecord(ctx, RevocationRecord{List: []byte("{}"), CRL: []byte{1}})
	if err != nil {
		t.Fatal(err)
	}
	if got, err := agent.Record(ctx); err != nil || string(got.List) != "{}" {
		t.Errorf("an agent reads %q, %v", got.List, err)
	}
	_, errCreate := agent.CreateRevocation(ctx, Revocation{Node: r.n1, Reason: keymgr.ReasonUnspecified})
	_, errPublish := agent.PublishRecord(ctx, RevocationRecord{List: []byte("mine"), Version: record.Version})
	configMaps := agent.conn.Core.CoreV1().ConfigMaps(agent.conn.Namespace)
	_, errOther := configMaps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "other"}}, metav1.CreateOptions{})
	reported := given
	reported.Status.Number = 1
	for what, err := range map[string]error{
		"revoke":          errCreate,
		"readmit":         agent.DeleteRevocation(ctx, given.Name),
		"report":          agent.ReportRevocation(ctx, reported),
		"publish":         errPublish,
		"delete the list": kube.Wrap("", configMaps.Delete(ctx, RevocationConfigMap, metav1.DeleteOptions{})),
		"make configmaps": kube.Wrap("", errOther),
	} {
		if !errors.Is(err, kube.ErrForbidden) {
			t.Errorf("%s: got error %v, want ErrForbidden", what, err)
		}
	}
	if err := r.admin.DeleteRevocation(ctx, given.Name); err != nil {
		t.Error(err)
	}
	r.Kubectl(t, "", "-n", agent.conn.Namespace, "delete", "configmap", RevocationConfigMap)
}

// testRealRevocation is about what only a real API server checks.
func testRealRevocation(t *testing.T, r *realCluster) {
	ctx := testContext(t)
	given, err := r.admin.CreateRevocation(ctx, Revocation{Node: r.n2, Reason: keymgr.ReasonKeyCompromise, Message: "stolen"})
	if err != nil {
		t.Fatal(err)
	}
	if out, err := r.TryKubectl(t, "", "patch", "revocation", given.Name, "--type=merge", "-p", `{"spec":{"reason":"superseded"}}`); err == nil || !strings.Contains(err.Error(), "cannot be changed") {
		t.Errorf("changed: %s, %v", out, err)
	}
	for _, bad := range []string{
		`{"nodeName":"n1","nodeUID":"u","reason":"stolen"}`, `{"nodeName":"N1","nodeUID":"u"}`, `{"nodeName":"n1"}`, `{"nodeName":"n1","nodeUID":"a/b"}`,
	} {
		manifest := `{"apiVersion":"sealane.io/v1alpha1","kind":"Revocation","metadata":{"name":"bad"},"spec":` + bad + `}`
		if out, err := r.TryKubectl(t, manifest, "create", "-f", "-"); err == nil {
			t.Errorf("%s was taken: %s", bad, out)
		}
	}
	hash := keymgr.Hash{1, 2, 3}
	given.Status = RevocationStatus{Number: 1787400000123, RevokedAt: given.Created, Keys: []keymgr.Hash{hash}, Serials: []keymgr.CertificateSerial{{Issuer: "CN=x", Serial: "a1"}}}
	if err := r.admin.ReportRevocation(ctx, given); err != nil {
		t.Fatal(err)
	}
	got, err := r.admin.AwaitListed(ctx, given.Name)
	if err != nil || got.Status.Number != given.Status.Number || len(got.Status.Keys) != 1 || got.Status.Keys[0] != hash {
		t.Errorf("listed %+v, %v", got.Status, err)
	}
	record, err := r.admin.PublishRecord(ctx, RevocationRecord{List: []byte("one")})
	if err != nil {
		t.Fatal(err)
	}
	stale := record
	record.List = []byte("two")
	if _, err = r.admin.PublishRecord(ctx, record); err != nil {
		t.Fatal(err)
	}
	if _, err := r.admin.PublishRecord(ctx, stale); !errors.Is(err, kube.ErrConflict) {
		t.Errorf("a writer with an old version: %v", err)
	}
}
