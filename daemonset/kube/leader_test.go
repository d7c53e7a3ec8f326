// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

func candidate(identity string) LeaderConfig {
	return LeaderConfig{
		Name: "sealane-controller", Identity: identity,
		LeaseDuration: time.Second, RenewDeadline: 500 * time.Millisecond, RetryPeriod: 20 * time.Millisecond,
	}
}

func TestLeadersNeverOverlap(t *testing.T) {
	api := newFake(t)
	var leading atomic.Int32
	elected := make(chan string, 2)
	lead := func(ctx context.Context, identity string) <-chan error {
		done := make(chan error, 1)
		go func() {
			done <- api.Lead(ctx, candidate(identity), func(ctx context.Context) error {
				if leading.Add(1) != 1 {
					t.Error("two leaders at once")
				}
				elected <- identity
				<-ctx.Done()
				leading.Add(-1)
				return nil
			})
		}()
		return done
	}
	ctx := testContext(t)
	firstCtx, stopFirst := context.WithCancel(ctx)
	secondCtx, stopSecond := context.WithCancel(ctx)
	defer stopSecond()
	first := lead(firstCtx, "a")
	if got := <-elected; got != "a" {
		t.Fatalf("elected %q", got)
	}
	second := lead(secondCtx, "b")
	stopFirst()
	if err := <-first; err != nil {
		t.Errorf("leader that was told to stop: %v", err)
	}
	select {
	case got := <-elected:
		if got != "b" {
			t.Errorf("elected %q, want the one that is left", got)
		}
	case <-ctx.Done():
		t.Fatal("nobody succeeded the leader")
	}
	stopSecond()
	if err := <-second; err != nil {
		t.Error(err)
	}
	lease, err := api.core.CoordinationV1().Leases(DefaultNamespace).Get(t.Context(), "sealane-controller", metav1.GetOptions{})
	if err != nil || *lease.Spec.HolderIdentity != "" {
		t.Errorf("lease is still held: %v, error %v", lease.Spec.HolderIdentity, err)
	}
}

func TestLeadReturnsWhatRunReturns(t *testing.T) {
	err := newFake(t).Lead(testContext(t), candidate("a"), func(context.Context) error { return errStopped })
	if !errors.Is(err, errStopped) {
		t.Errorf("got error %v", err)
	}
}

func TestLeaderIsElectedAgainAfterLosingTheLease(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	var away atomic.Bool
	api.core.PrependReactor("update", "leases", func(clienttesting.Action) (bool, runtime.Object, error) {
		return away.Load(), nil, errStopped
	})
	var terms int
	err := api.Lead(ctx, candidate("a"), func(ctx context.Context) error {
		if terms++; terms == 2 {
			return errStopped
		}
		away.Store(true) // the lease can no longer be renewed
		<-ctx.Done()
		away.Store(false)
		return ctx.Err()
	})
	if !errors.Is(err, errStopped) || terms != 2 {
		t.Errorf("got %d terms, error %v, want a second term", terms, err)
	}
}

func TestLeadRefusesBadConfig(t *testing.T) {
	cfg := candidate("")
	if err := newFake(t).Lead(testContext(t), cfg, nil); !errors.Is(err, ErrBadConfig) {
		t.Errorf("got error %v, want ErrBadConfig", err)
	}
}
