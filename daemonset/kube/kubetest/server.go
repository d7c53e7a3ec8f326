// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package kubetest starts a real Kubernetes API server for tests: etcd and
// kube-apiserver as processes of the test, on loopback, with RBAC, admission
// policies and bound tokens as in any cluster, and no kubelet or controller.
package kubetest

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// BinariesVariable names the environment variable with the directory that
// holds etcd, kube-apiserver and kubectl.
const BinariesVariable = "SEALANE_LAB_BIN"

const (
	adminToken   = "kubetest-admin"
	startTimeout = 2 * time.Minute
	probePeriod  = 100 * time.Millisecond
)

// Server is a running API server.
type Server struct {
	// URL is the server's address.
	URL string
	// AdminKubeconfig is the path of a kubeconfig that may do everything.
	AdminKubeconfig string
	// ClusterCA is the directory with ca.crt and ca.key: the CA that the API
	// server believes about client certificates, and that signed its own.
	ClusterCA string

	dir, bin string
}

// Start starts a server that ends with the test. Without the binaries, which
// BinariesVariable names, it skips the test.
func Start(t testing.TB) *Server {
	t.Helper()
	bin := os.Getenv(BinariesVariable)
	if bin == "" {
		t.Skipf("%s is not set: it names the directory with etcd, kube-apiserver and kubectl", BinariesVariable)
	}
	dir := t.TempDir()
	s := &Server{dir: dir, bin: bin, ClusterCA: dir, AdminKubeconfig: filepath.Join(dir, "admin.conf")}
	if err := writeCredentials(dir); err != nil {
		t.Fatal(err)
	}
	ports := freePorts(t, 3)
	etcd := "http://127.0.0.1:" + ports[0]
	s.run(t, "etcd",
		"--data-dir="+filepath.Join(dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls="+etcd, "--advertise-client-urls="+etcd,
		"--listen-peer-urls=http://127.0.0.1:"+ports[1])
	s.URL = "https://127.0.0.1:" + ports[2]
	s.run(t, "kube-apiserver",
		"--etcd-servers="+etcd, "--bind-address=127.0.0.1", "--secure-port="+ports[2],
		"--tls-cert-file="+s.file("apiserver.crt"), "--tls-private-key-file="+s.file("apiserver.key"),
		"--client-ca-file="+s.file("ca.crt"), "--token-auth-file="+s.file("tokens.csv"),
		"--service-account-issuer=https://kubernetes.default.svc",
		"--service-account-key-file="+s.file("sa.pub"), "--service-account-signing-key-file="+s.file("sa.key"),
		"--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.96.0.0/16",
		"--cert-dir="+dir, "--enable-priority-and-fairness=false")
	s.AdminKubeconfig = s.Kubeconfig(t, adminToken)
	s.awaitReady(t)
	return s
}

func (s *Server) file(name string) string { return filepath.Join(s.dir, name) }

// Kubeconfig writes a kubeconfig for a bearer token and returns its path.
func (s *Server) Kubeconfig(t testing.TB, token string) string {
	t.Helper()
	text := fmt.Sprintf(`{"apiVersion": "v1", "kind": "Config", "current-context": "c",
"clusters": [{"name": "c", "cluster": {"server": %q, "certificate-authority": %q}}],
"users": [{"name": "c", "user": {"token": %q}}],
"contexts": [{"name": "c", "context": {"cluster": "c", "user": "c"}}]}
`, s.URL, s.file("ca.crt"), token)
	file, err := os.CreateTemp(s.dir, "kubeconfig-*")
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.WriteString(text); err != nil {
		t.Fatal(err)
	}
	return file.Name()
}

// run starts a process that dies with the test.
func (s *Server) run(t testing.TB, name string, args ...string) {
	t.Helper()
	var output bytes.Buffer
	cmd := exec.Command(filepath.Join(s.bin, name), args...)
	cmd.Stdout, cmd.Stderr = &output, &output
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The process may be gone already; Wait reports how it ended.
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Logf("%s said:\n%s", name, tail(output.Bytes()))
		}
	})
}

func tail(text []byte) []byte {
	const most = 4000
	return text[max(0, len(text)-most):]
}

func (s *Server) awaitReady(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), startTimeout)
	defer cancel()
	tick := time.NewTicker(probePeriod)
	defer tick.Stop()
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: s.TLSConfig(t)}}
	defer client.CloseIdleConnections()
	for !s.ready(ctx, client) {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatal("the api server did not become ready")
		}
	}
}

func (s *Server) ready(ctx context.Context, client *http.Client) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, s.URL+"/readyz", nil)
	if err != nil {
		return false
	}
	answer, err := client.Do(req)
	if err != nil {
		return false
	}
	return answer.Body.Close() == nil && answer.StatusCode == http.StatusOK
}

// TLSConfig trusts the server and brings no credentials.
func (s *Server) TLSConfig(t testing.TB) *tls.Config {
	t.Helper()
	ca, err := os.ReadFile(s.file("ca.crt"))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	return &tls.Config{RootCAs: pool, MinVersion: tls.VersionTLS12}
}

// freePorts returns ports on which no program listens.
func freePorts(t testing.TB, n int) []string {
	t.Helper()
	var out []string
	for range n {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		out = append(out, strconv.Itoa(l.Addr().(*net.TCPAddr).Port))
	}
	return out
}
