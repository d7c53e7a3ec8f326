// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"fmt"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

// LeaderConfig describes an election.
type LeaderConfig struct {
	Name     string // of the Lease, in the client's namespace
	Identity string // of this candidate, unique among all
	// LeaseDuration is how long the others wait for a silent leader; 0 means 15 s.
	LeaseDuration time.Duration
	// RenewDeadline is how long a leader tries to renew before it steps down; it must be
	// shorter than LeaseDuration, and 0 means 10 s.
	RenewDeadline time.Duration
	// RetryPeriod is the time between tries; 0 means 2 s.
	RetryPeriod time.Duration
}

// Lead takes part in the election until ctx ends. Each time it is elected, it calls run
// with a context that ends with the leadership, and waits for run to return before it
// stands again or releases the Lease. So a slow run never makes two leaders overlap. Lead
// returns what run returns, or nil when ctx ends.
func (c *Client) Lead(ctx context.Context, cfg LeaderConfig, run func(context.Context) error) error {
	ctx = c.conn.WithLog(ctx)
	for ctx.Err() == nil {
		if err := c.term(ctx, cfg.withDefaults(), run); err != nil {
			return err
		}
	}
	return nil
}

// term stands for election once and serves one term.
func (c *Client) term(ctx context.Context, cfg LeaderConfig, run func(context.Context) error) error {
	// The elector's context outlives ctx until run has returned, since the
	// elector releases the Lease as soon as its context ends.
	electing, release := context.WithCancel(context.WithoutCancel(ctx))
	defer release()
	elected := make(chan context.Context, 1)
	elector, err := leaderelection.NewLeaderElector(c.electionConfig(cfg, elected))
	if err != nil {
		return fmt.Errorf("%w: leader election %s: %w", ErrBadConfig, cfg.Name, err)
	}
	over := make(chan struct{})
	go func() {
		defer close(over)
		elector.Run(electing)
	}()
	defer func() { release(); <-over }()

	select {
	case <-ctx.Done():
		return nil
	case <-over:
		return nil
	case leading := <-elected:
		return c.serve(ctx, leading, run)
	}
}

// serve calls run until ctx or the leadership ends.
func (c *Client) serve(ctx, leading context.Context, run func(context.Context) error) error {
	serving, stop := context.WithCancel(ctx)
	defer stop()
	defer context.AfterFunc(leading, stop)()
	err := run(serving)
	if ctx.Err() == nil && leading.Err() != nil {
		c.conn.Log.Warn("leadership lost", keyError, err)
		return nil
	}
	return err
}

func (c *Client) electionConfig(cfg LeaderConfig, elected chan<- context.Context) leaderelection.LeaderElectionConfig {
	return leaderelection.LeaderElectionConfig{
		Name: cfg.Name, LeaseDuration: cfg.LeaseDuration, RenewDeadline: cfg.RenewDeadline, RetryPeriod: cfg.RetryPeriod,
		ReleaseOnCancel: true,
		Lock: &resourcelock.LeaseLock{
			LeaseMeta:  metav1.ObjectMeta{Namespace: c.conn.Namespace, Name: cfg.Name},
			Client:     c.conn.Core.CoordinationV1(),
			LockConfig: resourcelock.ResourceLockConfig{Identity: cfg.Identity},
		},
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(ctx context.Context) { elected <- ctx },
			OnStoppedLeading: func() {},
			OnNewLeader:      func(id string) { c.conn.Log.Info("leader is elected", keyLeader, id) },
		},
	}
}

func (cfg LeaderConfig) withDefaults() LeaderConfig {
	for _, d := range []struct {
		field *time.Duration
		value time.Duration
	}{{&cfg.LeaseDuration, 15 * time.Second}, {&cfg.RenewDeadline, 10 * time.Second}, {&cfg.RetryPeriod, 2 * time.Second}} {
		if *d.field == 0 {
			*d.field = d.value
		}
	}
	return cfg
}
