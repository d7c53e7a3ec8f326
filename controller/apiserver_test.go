// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"log/slog"
	"math/big"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/controller/authority"
	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/kube/kubetest"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/identity"
)

// patience is how long a test waits for what must happen.
const patience = time.Minute

// realCluster is a real API server with controllers and agents that are real but
// for their pods.
type realCluster struct {
	*kubetest.Server
	domain string
	admin  *cluster.Client
}

func startCluster(t *testing.T) *realCluster {
	t.Helper()
	c := &realCluster{Server: kubetest.Start(t)}
	c.Install(t, kubetest.Values{"ca": map[string]any{"mode": "secret", "secretName": "operator-root"}})
	c.admin = c.client(t, c.AdminKubeconfig)
	var err error
	if c.domain, err = c.admin.TrustDomain(t.Context()); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *realCluster) client(t *testing.T, kubeconfig string) *cluster.Client {
	t.Helper()
	client, err := kube.NewClient(kube.Config{Kubeconfig: kubeconfig})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	return cluster.New(client)
}

// agent is the part of a node's agent that asks for certificates.
type agent struct {
	id       keymgr.NodeID
	client   *cluster.Client
	identity *identity.Identity
}

func (c *realCluster) addAgent(t *testing.T, node, podCIDR string) *agent {
	t.Helper()
	a := &agent{id: keymgr.NodeID{Name: node, UID: c.AddNode(t, node, podCIDR)}}
	a.client = c.client(t, c.Agent(t, node))
	a.identity = c.identity(t, a.id)
	return a
}

func (c *realCluster) identity(t *testing.T, id keymgr.NodeID) *identity.Identity {
	t.Helper()
	own, err := identity.Open(identity.Config{Dir: t.TempDir(), Node: id, TrustDomain: c.domain})
	if err != nil {
		t.Fatal(err)
	}
	return own
}

// request asks for a certificate with the token of a, for the key and the name
// of id.
func (a *agent) request(ctx context.Context, t *testing.T, id *identity.Identity) ([][]byte, error) {
	t.Helper()
	csr, err := id.CSR()
	if err != nil {
		t.Fatal(err)
	}
	return a.client.RequestCertificate(ctx, kube.CertificateRequest{Node: a.id, CSR: csr})
}

// controller runs a controller with the roles of the chart and returns what
// ends it and waits.
func (c *realCluster) controller(t *testing.T, cfg Config) (stop func()) {
	t.Helper()
	cfg.Kubeconfig = c.Kubeconfig(t, c.Token(t, "sealane-controller", ""))
	cfg.Namespace, cfg.MetricsAddress = kubetest.Namespace, "127.0.0.1:0"
	cfg.CertificateLifetime, cfg.MaxPerHour = approval.DefaultLeafLifetime, 100
	cfg.CA.IntermediateLifetime, cfg.CA.RootLifetime = ca.DefaultIntermediateLifetime, ca.DefaultRootLifetime
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- Run(ctx, cfg, slog.New(slog.NewTextHandler(t.Output(), nil))) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("controller %s: %v", cfg.Identity, err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return stop
}

func TestRealAPIServer(t *testing.T) {
	c := startCluster(t)
	n1, n2 := c.addAgent(t, "n1", "10.244.1.0/24"), c.addAgent(t, "n2", "10.244.2.0/24")
	stop := c.controller(t, Config{Identity: "a", CA: authority.Config{Mode: authority.ModeSelf}})
	t.Run("certificate", func(t *testing.T) { testCertificate(t, c, n1) })
	t.Run("other node", func(t *testing.T) { testOtherNode(t, c, n1, n2) })
	t.Run("other users", func(t *testing.T) { testOtherUsers(t, c, n1) })
	t.Run("stolen key", func(t *testing.T) { testStolenKey(t, c, n1, n2) })
	t.Run("expires column", func(t *testing.T) { testExpiresColumn(t, c, n1) })
	t.Run("node is gone", func(t *testing.T) { testNodeIsGone(t, c) })
	t.Run("revocation", func(t *testing.T) { testRevocation(t, c) })

	c.controller(t, Config{Identity: "b", CA: authority.Config{Mode: authority.ModeSelf}})
	stop()
	t.Run("successor", func(t *testing.T) { testCertificate(t, c, n2) })
}

func testCertificate(t *testing.T, c *realCluster, a *agent) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	chain, err := a.request(ctx, t, a.identity)
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := c.admin.TrustBundle(ctx)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := keymgr.VerifyCertificate(chain, bundle, time.Now())
	if err != nil {
		t.Fatal(err)
	}
	if cert.Node != a.id || cert.TrustDomain != c.domain || len(cert.PodCIDRs) != 1 {
		t.Errorf("got certificate %+v, want one of %v with its pod range", cert, a.id)
	}
	if err := a.identity.SetCertificate(chain, bundle); err != nil {
		t.Error(err)
	}
}

// testOtherNode asks for a certificate of n2 with the token of n1.
func testOtherNode(t *testing.T, c *realCluster, n1, n2 *agent) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	_, err := n1.request(ctx, t, c.identity(t, n2.id))
	denied, ok := errors.AsType[*kube.DeniedError](err)
	if !ok || denied.Reason != string(approval.ReasonName) || !strings.Contains(denied.Message, n1.id.UID) {
		t.Errorf("got error %v, want a refusal that says which name was expected", err)
	}
	for {
		events := c.Kubectl(t, "", "get", "events", "-A", "-o", "jsonpath={range .items[*]}{.reason} {.involvedObject.name} {.message}{\"\\n\"}{end}")
		if strings.Contains(events, "CertificateDenied n1 ") && strings.Contains(events, denied.Request) {
			return
		}
		select {
		case <-ctx.Done():
			t.Fatalf("the refusal was not reported; events:\n%s", events)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// testOtherUsers asks with every token that is not of an agent's live pod and
// that the admission policy lets pass, or that it does not apply to.
func testOtherUsers(t *testing.T, c *realCluster, n1 *agent) {
	c.AddPod(t, kubetest.Pod{Name: "impostor", Node: "n1", Owner: "none"})
	c.AddPod(t, kubetest.Pod{Name: "gone", Node: "n1"})
	gone := c.Kubeconfig(t, c.Token(t, "sealane-agent", "Pod/gone"))
	c.Kubectl(t, "", "-n", kubetest.Namespace, "delete", "pod", "gone", "--force", "--grace-period=0")
	for name, tc := range map[string]struct {
		kubeconfig string
		reason     approval.Reason
	}{
		"administrator":              {c.AdminKubeconfig, approval.ReasonUsername},
		"pod outside the daemon set": {c.Kubeconfig(t, c.Token(t, "sealane-agent", "Pod/impostor")), approval.ReasonPod},
		"pod that is gone":           {gone, approval.ReasonPod},
	} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			defer cancel()
			other := &agent{id: n1.id, client: c.client(t, tc.kubeconfig)}
			_, err := other.request(ctx, t, c.identity(t, n1.id))
			denied, ok := errors.AsType[*kube.DeniedError](err)
			// The token of a pod that is gone works for some seconds yet.
			refused := ok && denied.Reason == string(tc.reason) || name == "pod that is gone" && errors.Is(err, kube.ErrForbidden)
			if !refused {
				t.Errorf("got error %v, want a refusal for %s", err, tc.reason)
			}
		})
	}
}

// testStolenKey sends a request of n1 as n2, and one of n2 for the key of n1.
func testStolenKey(t *testing.T, c *realCluster, n1, n2 *agent) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	copied, err := n1.identity.CSR()
	if err != nil {
		t.Fatal(err)
	}
	pair, err := n1.identity.TLSCertificate()
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.CreateCertificateRequest(rand.Reader,
		&x509.CertificateRequest{URIs: []*url.URL{n2.id.URI(c.domain)}}, pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for reason, csr := range map[approval.Reason][]byte{
		approval.ReasonName:           copied,
		approval.ReasonKeyOfOtherNode: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}),
	} {
		_, err := n2.client.RequestCertificate(ctx, kube.CertificateRequest{Node: n2.id, CSR: csr})
		if denied, ok := errors.AsType[*kube.DeniedError](err); !ok || denied.Reason != string(reason) {
			t.Errorf("got error %v, want a refusal for %s", err, reason)
		}
	}
}

// testExpiresColumn wants kubectl to show the end of a certificate, which lies in
// the future, as a time.
func testExpiresColumn(t *testing.T, c *realCluster, a *agent) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := a.client.PublishNodeKey(ctx, a.id, keymgr.Signed{
		Payload: []byte(`{"seq": 1}`), Signature: []byte("signature"), Chain: [][]byte{[]byte("leaf")},
	}); err != nil {
		t.Fatal(err)
	}
	begin := time.Now().UTC().Truncate(time.Second)
	end := begin.Add(7 * 24 * time.Hour)
	if err := a.client.PublishStatus(ctx, a.id.Name, v1alpha1.NodeKeyStatus{Certificate: &v1alpha1.CertificateStatus{
		Serial: "0a", NotBefore: metav1.NewTime(begin), NotAfter: metav1.NewTime(end),
	}}); err != nil {
		t.Fatal(err)
	}
	if got := c.Kubectl(t, "", "get", "nodekeys"); !strings.Contains(got, end.Format(time.RFC3339)) || strings.Contains(got, "<invalid>") {
		t.Errorf("want the time %s in\n%s", end.Format(time.RFC3339), got)
	}
}

func testNodeIsGone(t *testing.T, c *realCluster) {
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	a := c.addAgent(t, "n3", "10.244.3.0/24")
	if err := a.client.PublishNodeKey(ctx, a.id, keymgr.Signed{
		Payload: []byte(`{"seq": 1}`), Signature: []byte("signature"), Chain: [][]byte{[]byte("leaf")},
	}); err != nil {
		t.Fatal(err)
	}
	w, err := c.admin.Watch(ctx, cluster.WatchConfig{})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); w.Wait() }()
	until := func(there bool) {
		t.Helper()
		for {
			s, complete := w.Snapshot()
			if _, found := s.NodeKeys["n3"]; complete && found == there {
				return
			}
			select {
			case <-w.Changed():
			case <-ctx.Done():
				t.Fatalf("nodekey there: want %t", there)
			}
		}
	}
	until(true)
	c.Kubectl(t, "", "delete", "node", "n3")
	until(false)
}

// TestRealClusterCA uses the CA that the API server takes logins from.
func TestRealClusterCA(t *testing.T) {
	c := startCluster(t)
	n1 := c.addAgent(t, "n1", "10.244.1.0/24")
	caCert, caKey := filepath.Join(c.ClusterCA, "ca.crt"), filepath.Join(c.ClusterCA, "ca.key")
	c.controller(t, Config{Identity: "a", CA: authority.Config{Mode: authority.ModeCluster, CertificateFile: caCert, KeyFile: caKey}})
	testCertificate(t, c, n1)

	// The same CA, asked for a user's certificate: this is what a login looks like.
	if got := c.login(t, userCertificate(t, caCert, caKey)); got != http.StatusForbidden {
		t.Fatalf("a user of the cluster's CA got status %d, want %d: known, and without rights", got, http.StatusForbidden)
	}
	ours, err := n1.identity.TLSCertificate()
	if err != nil {
		t.Fatal(err)
	}
	leafOnly := tls.Certificate{Certificate: ours.Certificate[:1], PrivateKey: ours.PrivateKey}
	for name, cert := range map[string]tls.Certificate{"with its chain": *ours, "alone": leafOnly} {
		if got := c.login(t, cert); got != http.StatusUnauthorized {
			t.Errorf("node certificate %s: got status %d, want %d", name, got, http.StatusUnauthorized)
		}
	}
}

// login returns the status that the API server answers to a client certificate.
func (c *realCluster) login(t *testing.T, cert tls.Certificate) int {
	t.Helper()
	cfg := c.TLSConfig(t)
	// Present it even if the server's hint on acceptable CAs speaks against it.
	cfg.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	transport := &http.Transport{TLSClientConfig: cfg}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, c.URL+"/api/v1/nodes", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	if err := answer.Body.Close(); err != nil {
		t.Error(err)
	}
	return answer.StatusCode
}

func userCertificate(t *testing.T, caCert, caKey string) tls.Certificate {
	t.Helper()
	issuer, err := tls.LoadX509KeyPair(caCert, caKey)
	if err != nil {
		t.Fatal(err)
	}
	key := controllertest.NewKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(77), Subject: pkix.Name{CommonName: "somebody"},
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, issuer.Leaf, &key.PublicKey, issuer.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

// TestRealOperatorRoot brings the root in a Secret, after the controller has
// started without it.
func TestRealOperatorRoot(t *testing.T) {
	c := startCluster(t)
	n1 := c.addAgent(t, "n1", "10.244.1.0/24")
	c.controller(t, Config{Identity: "a", CA: authority.Config{Mode: authority.ModeSecret, Secret: "operator-root"}})
	certificate, private := controllertest.OperatorRoot(t)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"tls.crt": certificate, "tls.key": private} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	c.Kubectl(t, "", "-n", kubetest.Namespace, "create", "secret", "tls", "operator-root",
		"--cert="+filepath.Join(dir, "tls.crt"), "--key="+filepath.Join(dir, "tls.key"))
	testCertificate(t, c, n1)
	bundle, err := c.admin.TrustBundle(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if block, _ := pem.Decode(bundle); block == nil || string(pem.EncodeToMemory(block)) != string(certificate) {
		t.Errorf("published bundle is\n%s\nwant the operator's root", bundle)
	}
}
