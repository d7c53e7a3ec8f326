// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command scale simulates a large cluster's key management: real statements, real
// verification, the real machines of rotation and the real plan of lanes, a fake
// kernel and a fake API server. Time is simulated, CPU is measured.
//
// A few nodes are observed: all that their agents compute is computed. The others
// are real in what they sign, and do by the clock what a node would do.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/perf/scale/internal/price"
	"github.com/sealane/sealane/perf/scale/internal/sim"
	"github.com/sealane/sealane/perf/scale/internal/wire"
)

// errUsage means that the command line cannot be understood.
var errUsage = errors.New("usage: scale [-nodes N] [-observed N] [-window DURATION]")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "scale:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("scale", flag.ContinueOnError)
	nodes := flags.Int("nodes", 5000, "how many nodes")
	var b bench
	flags.IntVar(&b.observed, "observed", 2, "how many of them compute everything")
	flags.DurationVar(&b.window, "window", 2*time.Minute, "how much is simulated of what goes on for long")
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", errUsage, err)
	}
	if flags.NArg() > 0 || b.observed < 2 || *nodes <= b.observed || *nodes > 1<<16 || b.window <= 0 {
		return errUsage
	}
	dir, err := os.MkdirTemp("", "sealane-scale-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b.dir = dir
	if err := b.prepare(ctx, *nodes); err != nil {
		return err
	}
	return b.play(ctx, out)
}

// prepare makes the certificates and statements of all nodes, and measures what is done
// only once.
func (b *bench) prepare(ctx context.Context, nodes int) error {
	start := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	// So old that the intermediate is due for renewal some hours later.
	c := sim.NewClock(start.Add(-ca.DefaultIntermediateLifetime / 3 * 2))
	authority, err := ca.Open(ctx, ca.Config{TrustDomain: trustDomain, Store: memorystore.New(), Clock: c.Now})
	if err != nil {
		return err
	}
	c.Set(start.Add(-time.Hour))
	b.registry = &registry{clock: c, authority: authority}
	for i := range nodes {
		a, err := b.registry.author(i)
		if err != nil {
			return err
		}
		b.authors = append(b.authors, a)
	}
	return b.weigh(ctx)
}

// weigh measures the memory of a verifier that knows everybody, and an exchange.
func (b *bench) weigh(ctx context.Context) error {
	before := heapSize()
	v, err := keymgr.NewVerifier(keymgr.VerifierConfig{
		TrustDomain: trustDomain, Self: keymgr.NodeID{Name: "reader", UID: "reader"}, Clock: b.registry.clock.Now, PSK: keymgr.PSKRequired,
	})
	if err == nil {
		err = v.SetRoots(b.registry.authority.Bundle())
	}
	if err != nil {
		return err
	}
	for _, a := range b.authors {
		s, err := wire.Decode(a.line)
		if err != nil {
			return err
		}
		if _, err := v.Verify(s, a.live); err != nil {
			return err
		}
	}
	b.memory = heapSize() - before
	b.price, err = price.Of(ctx, b.authors[0].end(), b.authors[1].end(), v.Authenticate)
	return err
}

func heapSize() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// play prints each scenario as soon as it is over, since each takes long.
func (b *bench) play(ctx context.Context, out io.Writer) error {
	b.head(out)
	var rows []row
	for _, scenario := range []func() (row, error){
		func() (row, error) { return b.quiet("nothing happens, an hour", 0) },
		func() (row, error) { return b.quiet("preshared keys are renewed, an hour", time.Hour) },
		b.one, b.all, b.restart, b.reissue,
	} {
		r, err := scenario()
		if err != nil {
			return fmt.Errorf("simulate scenario %d: %w", len(rows)+1, err)
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		b.print(out, r)
		rows = append(rows, r)
	}
	printAllCosts(out, rows)
	return nil
}
