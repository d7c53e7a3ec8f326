// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// program builds the CLI and returns what runs it against the lab.
func program(t testing.TB) func(args ...string) (string, error) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "sealane")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", path, "./cmd/sealane")
	build.Dir = root()
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build the CLI: %v\n%s", err, out)
	}
	config, err := lab(t.Context(), "", "kubeconfig")
	if err != nil {
		t.Fatal(err)
	}
	return func(args ...string) (string, error) {
		return outside(t, append([]string{path, "--kubeconfig", strings.TrimSpace(config)}, args...)...)
	}
}

// authorityStatus is what this test reads of sealane ca status -o json.
type authorityStatus struct {
	Phase string `json:"phase"`
	Roots []struct {
		Serial string `json:"serial"`
		KeyID  string `json:"keyID"`
	} `json:"roots"`
	Intermediate struct {
		Serial string `json:"serial"`
	} `json:"intermediate"`
	RootOnline bool `json:"rootOnline"`
	Nodes      int  `json:"nodes"`
	Informed   int  `json:"informed"`
}

func readStatus(t testing.TB, sealane func(...string) (string, error)) authorityStatus {
	t.Helper()
	out, err := sealane("ca", "status", "-o", "json")
	if err != nil {
		t.Fatalf("ca status: %v\n%s", err, out)
	}
	var s authorityStatus
	if err := json.Unmarshal([]byte(out), &s); err != nil {
		t.Fatalf("ca status: %v\n%s", err, out)
	}
	return s
}

// TestRootRotationLosesNothing changes the root under load: no packet is lost, every
// node ends with a certificate below the new root, and the old one is trusted by
// nobody.
func TestRootRotationLosesNothing(t *testing.T) {
	sealane := program(t)
	before := readStatus(t, sealane)
	if before.Phase != "steady" || len(before.Roots) != 1 || before.Nodes != len(nodes(t)) || before.Informed != before.Nodes {
		t.Fatalf("before: %+v", before)
	}
	ns := namespace(t, "e2e-root")
	server := loadPods(t, ns)
	l := startLoad(t, ns, server, 60)
	began := time.Now()
	out, err := sealane("ca", "rotate", "--timeout", "50s")
	t.Logf("%s after %s", out, time.Since(began).Round(time.Second))
	if err != nil {
		t.Errorf("ca rotate: %v", err)
	}
	l.wait()
	after := readStatus(t, sealane)
	if now := after.Intermediate.Serial; now == "" || now == before.Intermediate.Serial {
		t.Errorf("the intermediate is %q, and was %q", now, before.Intermediate.Serial)
	}
	if after.Phase != "steady" || len(after.Roots) != 1 || after.Roots[0].KeyID == before.Roots[0].KeyID || after.Informed != after.Nodes {
		t.Errorf("after: %+v", after)
	}
	for _, n := range nodes(t) {
		if out, err := sealane("certificate", n); err != nil {
			t.Errorf("node %s: %v\n%s", n, err, out)
		}
	}
	for _, reason := range []string{"ContinuityBroken", "KeyStatementRefused"} {
		if out := kubectl(t, "get", "events", "-A", "--field-selector", "reason="+reason, "-o", "name"); strings.TrimSpace(out) != "" {
			t.Errorf("Events %s: %s", reason, kubectl(t, "get", "events", "-A", "--field-selector", "reason="+reason))
		}
	}
}

// TestRootGoesOffline takes the root away and brings it back.
func TestRootGoesOffline(t *testing.T) {
	sealane := program(t)
	file := filepath.Join(t.TempDir(), "root.pem")
	if out, err := sealane("ca", "export-root", "--out", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	secrets := kubectl(t, "-n", "sealane-system", "get", "secret", "sealane-ca", "sealane-ca-root", "-o", "json")
	if strings.Contains(secrets, `"root.key"`) {
		t.Error("a root's key is in the cluster still")
	}
	online := func(want bool) func() error {
		return func() error {
			if s := readStatus(t, sealane); s.RootOnline != want {
				return fmt.Errorf("root online: %t", s.RootOnline)
			}
			return nil
		}
	}
	eventually(t, 3*time.Minute, "the controller knows that the root is offline", online(false))
	if out, err := sealane("ca", "import-root", file); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	eventually(t, 3*time.Minute, "the controller has the root again", online(true))
}
