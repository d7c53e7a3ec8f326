// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestNodeJoinsAndLeaves: the pods of a node that joins are reached through a
// lane, and when it is gone its addresses are refused at once. What the wire
// shows meanwhile, TestMain judges.
func TestNodeJoinsAndLeaves(t *testing.T) {
	const joiner = "n4"
	all := nodes(t)
	ns := namespace(t, "e2e-joins")
	start(t, ns, pod{Name: "client", Node: all[0]})
	if _, err := lab(t.Context(), "", "add-node", joiner); err != nil {
		t.Fatal(err)
	}
	gone := false
	leave := func(ctx context.Context) error {
		if gone {
			return nil
		}
		gone = true
		_, err := lab(ctx, "", "remove-node", joiner)
		return err
	}
	t.Cleanup(func() {
		if err := leave(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if _, err := lab(t.Context(), "", "load", filepath.Join(root(), "dist/sealane-image.tar")); err != nil {
		t.Fatal(err)
	}
	kubectl(t, "wait", "--for=condition=Ready", "node/"+joiner, "--timeout=180s")
	server := start(t, ns, pod{Name: "server", Node: joiner})["server"]
	ask := func(address string) (string, error) {
		return inPod(t, ns, "client", "curl -gsS -m 2 http://"+bracketed(address)+":8080/hostname")
	}
	for _, a := range server {
		eventually(t, 30*time.Second, "the new node's pod answers", func() error {
			if out, err := ask(a); err != nil || strings.TrimSpace(out) != "server" {
				return fmt.Errorf("%q, %w", out, err)
			}
			return nil
		})
	}
	if err := leave(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, a := range server {
		// Refused by a route, not lost in a lane to nobody: curl fails to connect (7)
		// instead of running out of time (28).
		eventually(t, 30*time.Second, "the pod of a node that left is refused", func() error {
			_, err := inPod(t, ns, "client", "curl -gsS -m 2 -o /dev/null http://"+bracketed(a)+":8080/hostname; [ $? -eq 7 ]")
			return err
		})
	}
}
