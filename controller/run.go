// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/internal/httpserver"
)

const (
	// retryPeriod is the time between attempts to open the authority or to reach
	// the API server, and attemptTimeout bounds one attempt.
	retryPeriod    = 5 * time.Second
	attemptTimeout = 30 * time.Second
)

// Run runs the controller until ctx ends or something fails that a restart may
// repair. It stops in order, first the work and then the leadership, so that the
// next leader starts at once and alone.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	if err := cfg.Validate(); err != nil {
		return err
	}
	if err := cfg.CA.CheckFiles(); err != nil {
		return err
	}
	connection, err := kube.NewClient(kube.Config{
		Kubeconfig: cfg.Kubeconfig, APIServer: cfg.APIServer, Namespace: cfg.Namespace,
		UserAgent: "sealane-controller", Logger: log,
	})
	if err != nil {
		return err
	}
	defer connection.Close()
	client := cluster.New(connection)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	metrics, err := newMetrics(registry)
	if err != nil {
		return err
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
	return httpserver.Server{Handler: handler}.Serve(ctx, listener)
}

// retry repeats try until it succeeds or ctx ends. Until then the controller is not
// ready, and its readiness probe says why.
func retry[T any](ctx context.Context, c *controller, try func(context.Context) (T, error)) (T, error) {
	for {
		attempt, cancel := context.WithTimeout(ctx, attemptTimeout)
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
		c.log.Warn("cannot start yet; retrying", keyError, err)
		select {
		case <-ctx.Done():
		case <-time.After(retryPeriod):
		}
	}
}

// stopped returns err, or nil if ctx has ended.
func stopped(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return nil
	}
	return err
}
