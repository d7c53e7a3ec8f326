// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// writeKubeconfig makes a file with one context of the given name, which is
// also the host name of its server.
func writeKubeconfig(t *testing.T, name string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	text := fmt.Sprintf(`apiVersion: v1
kind: Config
current-context: %[1]s
clusters: [{name: %[1]s, cluster: {server: "https://%[1]s:6443"}}]
users: [{name: %[1]s, user: {token: t}}]
contexts: [{name: %[1]s, context: {cluster: %[1]s, user: %[1]s}}]
`, name)
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestUserClientFindsKubeconfig(t *testing.T) {
	first, second, other := writeKubeconfig(t, "first"), writeKubeconfig(t, "second"), writeKubeconfig(t, "other")
	t.Setenv("HOME", t.TempDir())
	for _, tc := range []struct {
		name, env, file, context string
		want                     string // host; empty: ErrBadConfig
	}{
		{name: "list in the environment", env: first + ":" + second, want: "first:6443"},
		{name: "context of the second file", env: first + ":" + second, context: "second", want: "second:6443"},
		{name: "file before environment", env: first, file: other, want: "other:6443"},
		{name: "no such context", env: first, context: "third"},
		{name: "no such file", file: first + ".gone"},
		{name: "nothing at all"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Setenv("KUBECONFIG", tc.env)
			c, err := NewUserClient(Config{Kubeconfig: tc.file}, tc.context)
			if tc.want == "" {
				if !errors.Is(err, ErrBadConfig) {
					t.Errorf("error %v, want ErrBadConfig", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if got := c.conn.Core.CoreV1().RESTClient().Get().URL().Host; got != tc.want {
				t.Errorf("server %s, want %s", got, tc.want)
			}
		})
	}
}

func TestNodes(t *testing.T) {
	ctx := testContext(t)
	nodes, err := newFake(t, makeNode("n1", "u1", "10.1.0.0/24"), makeNode("n2", "u2")).Nodes(ctx)
	if err != nil || len(nodes) != 2 || nodes[0].Name != "n1" || nodes[1].UID != "u2" {
		t.Errorf("nodes %+v, error %v", nodes, err)
	}
	if _, err := newFake(t, makeNode("n1", "u1", "10.1.0.0")).Nodes(ctx); !errors.Is(err, ErrBadConfig) {
		t.Errorf("error %v, want ErrBadConfig", err)
	}
}
