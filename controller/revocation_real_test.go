// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"crypto/x509"
	"errors"
	"path/filepath"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/markstore"
)

// testRevocation revokes and readmits a node at a real API server, and reads the
// list with the agent's own rights, as an agent does.
func testRevocation(t *testing.T, c *realCluster) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a := c.addAgent(t, "n8", "10.244.8.0/24")
	old, err := a.identity.CSR() // each certificate has a key of its own: this is the first one's
	if err != nil {
		t.Fatal(err)
	}
	testCertificate(t, c, a)
	bundle, err := c.admin.TrustBundle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	reader := c.addAgent(t, "n9", "10.244.9.0/24")
	marks := markstore.New(filepath.Join(t.TempDir(), "peers"))
	v, err := keymgr.NewVerifier(keymgr.VerifierConfig{TrustDomain: c.domain, Self: reader.id, Marks: marks, Revocations: marks})
	if err != nil {
		t.Fatal(err)
	}
	if err := v.SetRoots(bundle); err != nil {
		t.Fatal(err)
	}
	w, err := reader.client.Watch(ctx, cluster.WatchConfig{Node: "n9"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); w.Wait() }()
	info, _ := a.identity.Certificate()
	until := func(what string, ok func() bool) {
		t.Helper()
		for {
			if s, complete := w.Snapshot(); complete && len(s.Revoked.List) > 0 {
				signed, err := keymgr.DecodeSigned(s.Revoked.List)
				if err != nil {
					t.Fatal(err)
				}
				if err := v.SetRevocations(signed); err != nil {
					t.Fatal(err)
				}
				if ok() {
					return
				}
			}
			select {
			case <-w.Changed():
			case <-ctx.Done():
				l, _ := v.Revocations()
				t.Fatalf("%s: never; list %+v", what, l)
			}
		}
	}
	blocked := func() bool { _, yes := v.Revoked(a.id, keymgr.CertificateInfo{}); return yes }
	byKey := func() bool { _, yes := v.Revoked(keymgr.NodeID{}, info); return yes }

	start := time.Now()
	order, err := c.admin.CreateRevocation(ctx, cluster.Revocation{Node: a.id, Reason: keymgr.ReasonKeyCompromise})
	if err != nil {
		t.Fatal(err)
	}
	until("revoked", func() bool { return blocked() && byKey() })
	t.Logf("from the order to the list at a reader: %s", time.Since(start))
	listed, err := c.admin.AwaitListed(ctx, order.Name)
	if err != nil || len(listed.Status.Keys) != 1 || len(listed.Status.Serials) != 1 {
		t.Errorf("status %+v, %v", listed.Status, err)
	}
	if _, err := a.request(ctx, t, a.identity); !deniedFor(err, approval.ReasonNodeRevoked) {
		t.Errorf("a revoked node asks for a certificate: %v", err)
	}
	s, _ := w.Snapshot()
	crl, err := x509.ParseRevocationList(s.Revoked.CRL)
	if err != nil || len(crl.RevokedCertificateEntries) == 0 {
		t.Errorf("CRL %+v, %v", crl, err)
	}

	if err := c.admin.DeleteRevocation(ctx, order.Name); err != nil {
		t.Fatal(err)
	}
	until("readmitted", func() bool { return !blocked() })
	if !byKey() {
		t.Error("the old key came back")
	}
	if _, err := a.client.RequestCertificate(ctx, kube.CertificateRequest{Node: a.id, CSR: old}); !deniedFor(err, approval.ReasonKeyRevoked) {
		t.Errorf("a readmitted node asks for a certificate for its old key: %v", err)
	}
	if err := a.identity.Reset(); err != nil {
		t.Fatal(err)
	}
	testCertificate(t, c, a)
	if info, _ := a.identity.Certificate(); info.SPKI == ([32]byte{}) {
		t.Error("no certificate")
	} else if _, revoked := v.Revoked(a.id, info); revoked {
		t.Errorf("the new certificate is revoked: %+v", info)
	}
}

func deniedFor(err error, reason approval.Reason) bool {
	denied, ok := errors.AsType[*kube.DeniedError](err)
	return ok && denied.Reason == string(reason)
}
