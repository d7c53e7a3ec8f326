// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"log/slog"
	"sync"
	"time"

	"github.com/sealane/sealane/controller/authority"
	"github.com/sealane/sealane/controller/revocation"
	"github.com/sealane/sealane/controller/signer"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/nodenet"
)

// controller stands for election and works while it is the leader.
type controller struct {
	cfg     Config
	client  *cluster.Client
	metrics *metrics
	health  *health
	log     *slog.Logger
}

func (c *controller) run(ctx context.Context) error {
	trustDomain, err := retry(ctx, c, c.client.TrustDomain)
	if err != nil {
		return stopped(ctx, err)
	}
	election := kube.LeaderConfig{Name: leaseName, Identity: c.cfg.Identity}
	return c.client.Lead(ctx, election, func(ctx context.Context) error {
		c.metrics.leader.Set(1)
		c.health.setLeading(true)
		defer c.metrics.resign()
		defer c.health.setLeading(false)
		return stopped(ctx, c.lead(ctx, trustDomain))
	})
}

// term is one leadership: what its parts share.
type term struct {
	*controller
	trustDomain string
	authority   *ca.Authority
	requests    *kube.RequestWatcher
	cluster     *cluster.Watcher
	revoked     *revocation.State
	rules       nodenet.Rules
}

// rules returns what the configuration and the cluster say of the network.
func (c *controller) rules(ctx context.Context) (nodenet.Rules, error) {
	networks, err := kube.LearnNetworks(ctx, c.client, c.cfg.ClusterPodCIDRs)
	if err != nil {
		return nodenet.Rules{}, err
	}
	return nodenet.Rules{NodeCIDRs: c.cfg.NodeCIDRs, PodCIDRs: networks.PodCIDRs, ServiceCIDRs: networks.ServiceCIDRs}, nil
}

// lead works as the leader until ctx ends.
func (c *controller) lead(ctx context.Context, trustDomain string) error {
	secrets := func(name string) ca.Store { return c.client.SecretStore(name) }
	opened, err := retry(ctx, c, func(ctx context.Context) (*ca.Authority, error) {
		return authority.Open(ctx, c.cfg.CA, trustDomain, secrets)
	})
	if err != nil {
		return err
	}
	rules, err := retry(ctx, c, c.rules)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	requests, err := c.client.WatchRequests(ctx)
	if err != nil {
		return err
	}
	defer func() { stop(); requests.Wait() }()
	cluster, err := c.client.Watch(ctx, cluster.WatchConfig{Reports: true, Revocations: true})
	if err != nil {
		return err
	}
	defer func() { stop(); cluster.Wait() }()
	c.log.Info("elected leader; issuing certificates", keyMode, c.cfg.CA.Mode)
	t := &term{controller: c, trustDomain: trustDomain, authority: opened, requests: requests, cluster: cluster, revoked: revocation.NewState(), rules: rules}
	t.work(ctx)
	return ctx.Err()
}

// work runs the revoker and the main loop until ctx ends.
func (t *term) work(ctx context.Context) {
	revoker := t.revoker()
	t.requests.Notify(revoker.Changes())
	t.cluster.Notify(revoker.Changes())
	var group sync.WaitGroup
	group.Go(func() { revoker.Run(ctx) })
	t.loop().run(ctx)
	group.Wait()
}

func (t *term) loop() *loop {
	return &loop{
		requests: t.requests, cluster: t.cluster, revoked: t.revoked,
		maintainer: &authority.Maintainer{
			CA: t.authority, Publisher: t.client, Mode: t.cfg.CA.Mode, Metrics: t.metrics.authority, Log: t.log, Clock: time.Now,
		},
		signer:    t.signer(),
		collector: &revocation.Collector{Client: t.client, State: t.revoked, Metrics: t.metrics.revocation, Log: t.log},
		health:    t.health, metrics: t.metrics, log: t.log,
	}
}

func (t *term) signer() *signer.Signer {
	return signer.New(signer.Config{
		Requests: t.requests, CSRs: t.client, Live: t.client, Events: t.client, Issuer: t.authority, Revocations: t.revoked,
		Policy: approval.Policy{
			TrustDomain: t.trustDomain, Namespace: t.cfg.Namespace, ServiceAccount: kube.AgentServiceAccount,
			MaxLifetime: t.cfg.CertificateLifetime, MaxPerHour: t.cfg.MaxPerHour, Rules: t.rules,
		},
		Metrics: t.metrics.signer, Progress: t.health.pass, Log: t.log, Clock: time.Now,
	})
}

func (t *term) revoker() *revocation.Revoker {
	return revocation.New(revocation.Config{
		Requests: t.requests, Cluster: t.cluster, Signer: t.authority, Store: t.authority, Publisher: t.client, Events: t.client,
		State: t.revoked, TrustDomain: t.trustDomain, Lifetime: t.cfg.CertificateLifetime,
		Metrics: t.metrics.revocation, Failures: t.metrics.failures, Log: t.log, Clock: time.Now,
	})
}
