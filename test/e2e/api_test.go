// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"
)

// api speaks to the API server directly, where the time that kubectl takes to
// start would be in the way.
type api struct {
	server string
	client *http.Client
}

// object is any part of an API object.
type object = map[string]any

func newAPI(t testing.TB) *api {
	t.Helper()
	path, err := lab(t.Context(), "", "kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(strings.TrimSpace(path))
	if err != nil {
		t.Fatal(err)
	}
	var config struct {
		Clusters []struct {
			Cluster struct {
				Server string `json:"server"`
				CA     []byte `json:"certificate-authority-data"`
			} `json:"cluster"`
		} `json:"clusters"`
		Users []struct {
			User struct {
				Certificate []byte `json:"client-certificate-data"`
				Key         []byte `json:"client-key-data"`
			} `json:"user"`
		} `json:"users"`
	}
	if err := json.Unmarshal(text, &config); err != nil {
		t.Fatal(err)
	}
	user := config.Users[0].User
	certificate, err := tls.X509KeyPair(user.Certificate, user.Key)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(config.Clusters[0].Cluster.CA)
	client := clientIn(t, "wire")
	client.Transport.(*http.Transport).TLSClientConfig = &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{certificate}}
	return &api{server: config.Clusters[0].Cluster.Server, client: client}
}

// do sends a request, with the body as JSON unless it is nil. It gives the
// times just before the request, and just after the answer.
func (a *api) do(t testing.TB, method, path string, body any) (asked, done time.Time) {
	t.Helper()
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			t.Fatal(err)
		}
	}
	r, err := http.NewRequestWithContext(t.Context(), method, a.server+path, bytes.NewReader(text))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	if method == http.MethodPatch {
		r.Header.Set("Content-Type", "application/merge-patch+json")
	}
	asked = time.Now()
	answer, err := a.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	done = time.Now()
	defer answer.Body.Close()
	if said, err := io.ReadAll(answer.Body); err != nil || answer.StatusCode >= 300 {
		t.Fatalf("%s %s: %s: %s, %v", method, path, answer.Status, said, err)
	}
	return asked, done
}

// label sets labels of a pod, or of a namespace if the pod has no name. A nil
// value takes the label away.
func (a *api) label(t testing.TB, ns, pod string, labels object) (asked, done time.Time) {
	t.Helper()
	path := "/api/v1/namespaces/" + ns
	if pod != "" {
		path += "/pods/" + pod
	}
	return a.do(t, http.MethodPatch, path, object{"metadata": object{"labels": labels}})
}

func policies(ns string) string {
	return "/apis/networking.k8s.io/v1/namespaces/" + ns + "/networkpolicies"
}

// policy makes a NetworkPolicy.
func (a *api) policy(t testing.TB, ns, name string, spec object) (asked, done time.Time) {
	t.Helper()
	return a.do(t, http.MethodPost, policies(ns), object{
		"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": object{"name": name}, "spec": spec,
	})
}

func (a *api) deletePolicy(t testing.TB, ns, name string) (asked, done time.Time) {
	t.Helper()
	return a.do(t, http.MethodDelete, policies(ns)+"/"+name, nil)
}
