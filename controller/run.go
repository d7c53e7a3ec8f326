// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
)

const (
	// retryPeriod is the time between tries to open the authority or to reach
	// the API server.
	retryPeriod = 5 * time.Second
	// headerTimeout bounds how long a client of the pages may dawdle.
	headerTimeout = 5 * time.Second
)

// Run serves until ctx ends or something fails that a restart may mend. It ends
// in order: the work first, then the leadership, so that the next leader starts
// at once and alone.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if cfg.CAMode == CACluster { // find a missing file now, not with the first term
		if _, err := readRoot(cfg); err != nil {
			return err
		}
	}
	client, err := kube.NewClient(kube.Config{
		Kubeconfig: cfg.Kubeconfig, APIServer: cfg.APIServer, Namespace: cfg.Namespace,
		UserAgent: "sealane-controller", Logger: log,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics, err := newMetrics(registry)
	if err != nil {
		return fmt.Errorf("register metrics: %w", err)
	}
	c := &controller{cfg: cfg, client: client, metrics: metrics, health: newHealth(time.Now), log: log}
	listener, err := (&net.ListenConfig{}).Listen(ctx, "tcp", cfg.MetricsAddress)
	if err != nil {
		return fmt.Errorf("listen for --metrics-address=%s: %w", cfg.MetricsAddress, err)
	}
	group, ctx := errgroup.WithContext(ctx)
	records, err := client.WatchRecord(ctx)
	if err != nil {
		return err
	}
	defer records.Wait()
	group.Go(func() error { return serve(ctx, listener, pages(c.health, registry, records.Record)) })
	group.Go(func() error { return c.run(ctx) })
	return group.Wait()
}

func serve(ctx context.Context, listener net.Listener, handler http.Handler) error {
	server := &http.Server{Handler: handler, ReadHeaderTimeout: headerTimeout}
	defer context.AfterFunc(ctx, func() { _ = server.Close() })() // its error is that of Serve
	if err := server.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve %s: %w", listener.Addr(), err)
	}
	return nil
}

// controller stands for election and, when elected, works.
type controller struct {
	cfg     Config
	client  *kube.Client
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
		return stopped(ctx, c.term(ctx, trustDomain))
	})
}

// term is one leadership: it ends with ctx.
func (c *controller) term(ctx context.Context, trustDomain string) error {
	secrets := func(name string) ca.Store { return c.client.SecretStore(name) }
	authority, err := retry(ctx, c, func(ctx context.Context) (*ca.Authority, error) {
		return openAuthority(ctx, c.cfg, trustDomain, secrets)
	})
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
	cluster, err := c.client.Watch(ctx, kube.WatchConfig{Reports: true, Revocations: true})
	if err != nil {
		return err
	}
	defer func() { stop(); cluster.Wait() }()
	c.log.Info("leader works", keyMode, c.cfg.CAMode)
	r := c.revoker(authority, trustDomain)
	r.requests, r.cluster = requests, cluster
	requests.Notify(r.news)
	cluster.Notify(r.news)
	var work sync.WaitGroup
	work.Go(func() { r.run(ctx) })
	w := c.worker(authority, requests, cluster, trustDomain)
	w.signer.revoked, w.collector.register = r.register, r.register
	w.run(ctx)
	work.Wait()
	return ctx.Err()
}

func (c *controller) worker(a Authority, requests RequestFeed, cluster ClusterFeed, trustDomain string) *worker {
	return &worker{
		authority: a, requests: requests, cluster: cluster, publisher: c.client,
		signer: &signer{
			facts: c.client, desk: c.client, report: c.client, issuer: a, history: newHistory(),
			policy: ca.Policy{
				TrustDomain: trustDomain, Namespace: c.cfg.Namespace, ServiceAccount: kube.AgentServiceAccount,
				MaxLifetime: c.cfg.CertificateLifetime, MaxPerHour: c.cfg.MaxPerHour,
			},
			metrics: c.metrics, log: c.log, clock: time.Now,
		},
		collector: &collector{registry: c.client, metrics: c.metrics, log: c.log},
		queue:     newQueue(), ledger: &ledger{}, health: c.health, metrics: c.metrics, log: c.log, clock: time.Now, mode: c.cfg.CAMode,
	}
}

func (c *controller) revoker(a *ca.Authority, trustDomain string) *revoker {
	return &revoker{
		registrar: a, vault: a, notice: c.client, report: c.client, register: newRegister(), news: make(chan struct{}, 1),
		trustDomain: trustDomain, lifetime: c.cfg.CertificateLifetime, metrics: c.metrics, log: c.log, clock: time.Now,
	}
}

// retry tries until it works or ctx ends. Meanwhile the controller is not ready
// and says why.
func retry[T any](ctx context.Context, c *controller, try func(context.Context) (T, error)) (T, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, callTimeout)
		out, err := try(attempt)
		cancel()
		if ctx.Err() != nil {
			return out, ctx.Err()
		}
		c.health.report(err)
		if err == nil {
			return out, nil
		}
		c.health.pass()
		c.log.Warn("cannot start yet", keyError, err)
		select {
		case <-ctx.Done():
		case <-time.After(retryPeriod):
		}
	}
}

// stopped makes the end of ctx no error.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
