// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cacmd

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/rootchange"
)

// registry is a cluster of one node whose controller takes a step at each look.
type registry struct {
	t       *testing.T
	mode    string
	roots   *memorystore.Store
	cluster *keytest.Cluster
	node    *keytest.Node
	request string
	stuck   bool // the node does not follow
	idle    bool // the controller does not work
}

func newRegistry(t *testing.T) *registry {
	t.Helper()
	clock := keytest.NewClock()
	clock.Add(time.Since(clock.Now()) - time.Hour)
	r := &registry{t: t, mode: "self", roots: memorystore.New()}
	r.cluster = keytest.NewClusterWith(t, clock, ca.Config{Store: memorystore.New(), RootStore: r.roots, Clock: clock.Now})
	clock.Add(time.Hour)
	r.node = r.cluster.Node("n1", "10.244.1.0/24")
	return r
}

func (r *registry) bundleHash() string {
	hash, err := keymgr.HashBundle(r.cluster.Authority.Bundle())
	if err != nil {
		r.t.Fatal(err)
	}
	return hash.String()
}

func (r *registry) Trust(ctx context.Context) (cluster.Trust, error) {
	if !r.idle {
		r.step(ctx)
	}
	status, err := r.cluster.Authority.Status()
	if err != nil {
		return cluster.Trust{}, err
	}
	account, err := status.Account(r.mode).Encode()
	return cluster.Trust{Bundle: r.cluster.Authority.Bundle(), Authority: account, Request: r.request}, err
}

func (r *registry) step(ctx context.Context) {
	keys, err := r.NodeKeys(ctx)
	if err != nil {
		r.t.Fatal(err)
	}
	f := rootchange.Fleet{Nodes: []rootchange.NodeReport{{
		Name: "n1", Ready: true, BundleHash: keys[0].Status.BundleHash, Chain: keys[0].Spec.CertificateChain,
	}}}
	if r.request != "" {
		if f.Request, err = time.Parse(time.RFC3339, r.request); err != nil {
			r.t.Fatal(err)
		}
	}
	moved, err := r.cluster.Authority.Advance(ctx, f)
	if err != nil {
		r.t.Fatal(err)
	}
	if moved && !r.stuck {
		r.cluster.Certify(r.node)
	}
}

func (r *registry) Nodes(context.Context) ([]kube.Node, error) {
	return []kube.Node{{Name: "n1", UID: r.node.Live.ID.UID, Ready: true}, {Name: "joining", UID: "j", Ready: true}}, nil
}

func (r *registry) NodeKeys(context.Context) ([]v1alpha1.NodeKey, error) {
	cert, err := r.node.Identity.TLSCertificate()
	if err != nil {
		return nil, err
	}
	key := v1alpha1.NodeKey{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Spec:       v1alpha1.NodeKeySpec{NodeUID: r.node.Live.ID.UID, CertificateChain: cert.Certificate},
	}
	if !r.stuck {
		key.Status.BundleHash = r.bundleHash()
	}
	return []v1alpha1.NodeKey{key}, nil
}

func (r *registry) RequestRootRotation(_ context.Context, at time.Time) error {
	r.request = at.UTC().Format(time.RFC3339)
	return nil
}

func wantLines(t *testing.T, text string, want ...string) {
	t.Helper()
	for _, w := range want {
		if !strings.Contains(text, w) {
			t.Errorf("the output lacks %q:\n%s", w, text)
		}
	}
}

func TestCARotate(t *testing.T) {
	r := newRegistry(t)
	var out bytes.Buffer
	before := r.bundleHash()
	if err := rotateRoot(t.Context(), r, cli.Terminal{Out: &out}, rootRotateOptions{timeout: time.Minute}); err != nil {
		t.Fatal(err)
	}
	if r.bundleHash() == before {
		t.Error("the root is the old one")
	}
	wantLines(t, out.String(), "requested a new root in place of ", "phase switched", "the root is ")

	out.Reset()
	r.stuck = true
	err := rotateRoot(t.Context(), r, cli.Terminal{Out: &out}, rootRotateOptions{timeout: 1500 * time.Millisecond})
	if !errors.Is(err, errUnfinished) || !strings.Contains(err.Error(), "waiting for 1 of 1 nodes: n1, which has not reported a trust bundle") {
		t.Errorf("with a node that does not follow: error %v", err)
	}
	r.stuck = false
	out.Reset()
	if err := rotateRoot(t.Context(), r, cli.Terminal{Out: &out}, rootRotateOptions{timeout: time.Minute}); err != nil {
		t.Error(err)
	}
	wantLines(t, out.String(), "already under way", "the root is ")

	r.idle = true
	err = rotateRoot(t.Context(), r, cli.Terminal{Out: &out}, rootRotateOptions{timeout: time.Second})
	if !errors.Is(err, errUnfinished) || !strings.Contains(err.Error(), "is it running?") {
		t.Errorf("without a controller: error %v", err)
	}
	if err := rotateRoot(t.Context(), r, cli.Terminal{Out: &out}, rootRotateOptions{noWait: true}); err != nil {
		t.Error(err)
	}
	r.mode = "secret"
	if err := rotateRoot(t.Context(), r, cli.Terminal{Out: &out}, rootRotateOptions{}); err == nil || !strings.Contains(err.Error(), "handed in") {
		t.Errorf("an operator's root: error %v", err)
	}
}

// A request must be younger than root and former request, whatever this clock says.
func TestRequestTime(t *testing.T) {
	now := time.Now()
	root := rootchange.Status{NotBefore: now.Add(time.Hour)}
	if at := requestTime(caReport{}, root); !at.After(root.NotBefore.Add(5 * time.Minute)) {
		t.Errorf("asked at %v for another root than that of %v", at, root.NotBefore)
	}
	last := now.Add(2 * time.Hour).Truncate(time.Second)
	if at := requestTime(caReport{request: last.Format(time.RFC3339)}, root); !at.After(last) {
		t.Errorf("asked at %v after %v", at, last)
	}
}

func TestCAStatus(t *testing.T) {
	r := newRegistry(t)
	report, err := readAuthority(t.Context(), r)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := showAuthority(cli.Terminal{Out: &out}, report, "text"); err != nil {
		t.Error(err)
	}
	wantLines(t, out.String(), "mode self, root: its key is in the cluster", "issuing", "on 1 of 1 nodes", "root rotation: steady")
	if strings.Contains(out.String(), `"`) {
		t.Errorf("words are quoted:\n%s", out.String())
	}

	r.stuck = true
	if err := r.RequestRootRotation(t.Context(), time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	if report, err = readAuthority(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	out.Reset()
	if err := showAuthority(cli.Terminal{Out: &out}, report, "json"); err != nil {
		t.Error(err)
	}
	var back caReport
	if err := json.Unmarshal(out.Bytes(), &back); err != nil || back.Phase != rootchange.PhaseAnnounced || len(back.Roots) != 2 || len(back.Waits) != 1 || back.Informed != 0 {
		t.Errorf("JSON says %+v, %v", back, err)
	}
	out.Reset()
	report.RootWanted, report.RootOnline = true, false
	if err := showAuthority(cli.Terminal{Out: &out}, report, "text"); !errors.Is(err, cli.ErrBad) {
		t.Errorf("error %v, want cli.ErrBad", err)
	}
	wantLines(t, out.String(), "offline", "THE ROOT IS WANTED", "waiting for node n1, which has not reported")
	if err := showAuthority(cli.Terminal{Out: &out}, report, "yaml"); err == nil {
		t.Error("--output=yaml was taken")
	}
}

// The report comes from the API: it must not control the terminal.
func TestCAStatusIsSafeForATerminal(t *testing.T) {
	const evil = "\x1b[2J\tx\n"
	r := caReport{Waits: []rootchange.Holdup{{Node: evil, Reason: evil}}}
	r.Mode, r.Phase, r.Issuer.Serial = evil, evil, evil
	r.Roots = []rootchange.Status{{Serial: evil, State: evil, KeyID: evil}}
	var out bytes.Buffer
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "\x1b") || strings.Contains(out.String(), "\tx") {
		t.Errorf("control characters reach the terminal: %q", out.String())
	}
}

func TestExportAndImportRoot(t *testing.T) {
	r, ctx := newRegistry(t), t.Context()
	path := filepath.Join(t.TempDir(), "root.pem")
	var out bytes.Buffer
	for _, bad := range []exportOptions{{}, {out: "-"}, {out: "/nowhere/root.pem"}} {
		if err := exportRoot(ctx, r.roots, cli.Terminal{Out: &out}, bad); err == nil {
			t.Errorf("%+v was taken", bad)
		}
	}
	if err := exportRoot(ctx, r.roots, cli.Terminal{Out: &out}, exportOptions{out: "-", keep: true}); err != nil || !strings.Contains(out.String(), "PRIVATE KEY") {
		t.Errorf("to standard output: %v, %q", err, out.String())
	}
	out.Reset()
	if err := exportRoot(ctx, r.roots, cli.Terminal{Out: &out}, exportOptions{out: path}); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(out.String(), "PRIVATE KEY") {
		t.Error("the key was printed")
	}
	info, err := os.Stat(path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("file has mode %v, %v", info.Mode(), err)
	}
	stored, err := r.roots.Load(ctx)
	if err != nil || len(stored.Files[ca.FileRootKey]) > 0 {
		t.Errorf("the key is in the cluster still (%v)", err)
	}
	if err := exportRoot(ctx, r.roots, cli.Terminal{Out: &out}, exportOptions{out: path}); !errors.Is(err, ca.ErrRootOffline) {
		t.Errorf("exported twice: %v", err)
	}
	if err := importRoot(ctx, r.roots, cli.Terminal{Out: &out}, path); err != nil {
		t.Fatal(err)
	}
	if err := exportRoot(ctx, r.roots, cli.Terminal{Out: &out}, exportOptions{out: path}); !errors.Is(err, os.ErrExist) {
		t.Errorf("a file was overwritten: %v", err)
	}
	if stored, err = r.roots.Load(ctx); err != nil || len(stored.Files[ca.FileRootKey]) == 0 {
		t.Errorf("the key was removed without a file (%v)", err)
	}
	if err := importRoot(ctx, r.roots, cli.Terminal{Out: &out}, filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}
