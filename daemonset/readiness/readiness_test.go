// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package readiness

import (
	"context"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni"
)

func TestStateBecomesReadyOnceAndStaysSo(t *testing.T) {
	s := New(Node, Network)
	if _, err := s.PodMTU(); !errors.Is(err, cni.ErrNotReady) || !strings.Contains(err.Error(), "starting") {
		t.Errorf("before: %v", err)
	}
	s.SetMTU(1420)
	s.Report(Node, nil)
	s.Report(Network, errors.New("no lane"))
	if _, err := s.PodMTU(); !errors.Is(err, cni.ErrNotReady) || !strings.Contains(err.Error(), "network: no lane") {
		t.Errorf("half: %v", err)
	}
	s.Report(Network, nil)
	select {
	case <-s.Connectable():
	default:
		t.Error("nobody is told that pods can be connected")
	}
	s.Report(Node, errors.New("API server away"))
	if mtu, err := s.PodMTU(); err != nil || mtu != 1420 {
		t.Errorf("after a later fault: %d, %v; pods must still be connected", mtu, err)
	}
	if diff := cmp.Diff([]string{"node: API server away"}, s.Reasons()); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

func TestRevokedNodeIsNotReadyButConnectsPods(t *testing.T) {
	s := New()
	if !s.Ready() {
		t.Error("nothing is waited for, but the node is not ready")
	}
	s.SetRevoked(true)
	if _, err := s.PodMTU(); s.Ready() || err != nil {
		t.Errorf("revoked: ready %t, pods: %v", s.Ready(), err)
	}
	s.SetRevoked(false)
	if !s.Ready() {
		t.Error("not ready after it was readmitted")
	}
}

func TestAwait(t *testing.T) {
	s := New(Node, Policy)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Await(ctx, Node, Policy) }()
	s.Report(Node, nil)
	select {
	case err := <-done:
		t.Fatalf("returned %v while a part is missing", err)
	default:
	}
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("ctx ended: %v", err)
	}
	s.Report(Policy, nil)
	if err := s.Await(t.Context(), Node, Policy); err != nil {
		t.Errorf("all parts work: %v", err)
	}
}
