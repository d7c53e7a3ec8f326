// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/test/lab/internal/plan"
)

// api talks to the cluster's API server as its administrator, from within the wire's network namespace.
type api struct {
	client *http.Client
	server string
}

// connect prepares calls; it makes none.
func (l *Lab) connect(o plan.Options) (*api, error) {
	wire, err := l.machineOf(plan.WireName)
	if err != nil {
		return nil, err
	}
	login, roots, err := readKubeconfig(filepath.Join(l.paths.PKI(), adminConf))
	if err != nil {
		return nil, err
	}
	return &api{server: o.Server(), client: &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{login}},
		DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
			return dialIn(ctx, wire.Namespace("net"), address)
		},
	}}}, nil
}

// readKubeconfig reads what [pki.Kubeconfig] wrote.
func readKubeconfig(file string) (tls.Certificate, *x509.CertPool, error) {
	var c struct {
		Clusters []struct {
			Cluster struct {
				CA []byte `json:"certificate-authority-data"`
			}
		}
		Users []struct {
			User struct {
				Cert []byte `json:"client-certificate-data"`
				Key  []byte `json:"client-key-data"`
			}
		}
	}
	if err := readJSON(file, &c); err != nil {
		return tls.Certificate{}, nil, err
	}
	if len(c.Clusters) != 1 || len(c.Users) != 1 {
		return tls.Certificate{}, nil, fmt.Errorf("read %s: want one cluster and one user", file)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(c.Clusters[0].Cluster.CA)
	login, err := tls.X509KeyPair(c.Users[0].User.Cert, c.Users[0].User.Key)
	return login, roots, err
}

// dialIn opens a TCP connection in another network namespace: a socket belongs to that of the thread that made it.
func dialIn(ctx context.Context, namespace, address string) (net.Conn, error) {
	runtime.LockOSThread()
	own, err := os.Open("/proc/thread-self/ns/net")
	if err != nil {
		return nil, err
	}
	defer own.Close()
	there, err := os.Open(namespace)
	if err != nil {
		return nil, err
	}
	defer there.Close()
	if err := unix.Setns(int(there.Fd()), unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("enter network namespace: %w", err)
	}
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if back := unix.Setns(int(own.Fd()), unix.CLONE_NEWNET); back != nil {
		return conn, fmt.Errorf("leave network namespace: %w", back) // the thread stays locked, and ends with its goroutine
	}
	runtime.UnlockOSThread()
	return conn, err
}

// call sends a request and decodes the answer into out, unless that is nil.
func (a *api) call(ctx context.Context, method, path string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, a.server+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if method == http.MethodPatch {
		req.Header.Set("Content-Type", "application/merge-patch+json")
	}
	res, err := a.client.Do(req)
	if err != nil {
		return err
	}
	defer res.Body.Close()
	text, err := io.ReadAll(res.Body)
	if err != nil {
		return err
	}
	if res.StatusCode/100 != 2 {
		return fmt.Errorf("%s %s: %s: %s", method, path, res.Status, strings.TrimSpace(string(text)))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(text, out)
}

func (a *api) get(ctx context.Context, path string, out any) error {
	return a.call(ctx, http.MethodGet, path, nil, out)
}

// nodeStatus is what the lab reads of a Node object.
type nodeStatus struct {
	Spec struct {
		PodCIDRs []string `json:"podCIDRs"`
	} `json:"spec"`
	Status struct {
		Conditions []struct {
			Type   string `json:"type"`
			Status string `json:"status"`
		} `json:"conditions"`
	} `json:"status"`
}

func (s nodeStatus) ready() bool {
	for _, c := range s.Status.Conditions {
		if c.Type == "Ready" {
			return c.Status == "True"
		}
	}
	return false
}

const nodesPath = "/api/v1/nodes/"

// registered waits until a node has an object and pod ranges of every family.
func (a *api) registered(ctx context.Context, o plan.Options, name string) (nodeStatus, error) {
	var s nodeStatus
	err := until(ctx, "pod range of "+name, func(ctx context.Context) error {
		if err := a.get(ctx, nodesPath+name, &s); err != nil {
			return err
		}
		if len(s.Spec.PodCIDRs) < len(o.Families.Pods()) {
			return fmt.Errorf("has %v", s.Spec.PodCIDRs)
		}
		return nil
	})
	return s, err
}

// ready waits until a node is Ready.
func (a *api) ready(ctx context.Context, name string) error {
	return until(ctx, name+" to be Ready", func(ctx context.Context) error {
		var s nodeStatus
		if err := a.get(ctx, nodesPath+name, &s); err != nil {
			return err
		}
		if !s.ready() {
			return fmt.Errorf("conditions %v", s.Status.Conditions)
		}
		return nil
	})
}

// pause between two looks at something that cannot tell when it changes.
const pause = 100 * time.Millisecond

// until calls ok until it returns nil; it gives up with the last problem when ctx ends.
func until(ctx context.Context, what string, ok func(context.Context) error) error {
	look := time.NewTicker(pause)
	defer look.Stop()
	for {
		err := ok(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("wait for %s: %w: %w: %w", what, ErrLate, context.Cause(ctx), err)
		case <-look.C:
		}
	}
}
