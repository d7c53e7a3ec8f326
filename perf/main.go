// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command perf measures Sealane beside flannel and beside the bare limits of the
// kernel and of wireguard-go, in turns on the same machine, and prints ratios. The
// script run beside it builds what it needs and brings the clusters up.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/signal"
	"syscall"
	"time"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "perf:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	if len(args) > 0 {
		switch args[0] {
		case "compare":
			return runCompare(ctx, args[1:])
		case "cni":
			return runCNI(ctx, args[1:])
		case "serve":
			return runServe(ctx, args[1:])
		case "roundtrips":
			return runRoundTrips(ctx, args[1:])
		}
	}
	return fmt.Errorf("%w: perf compare|cni|serve|roundtrips [FLAG…]; perf/run does it all", ErrUsage)
}

// parse reads flags and wants nothing behind them.
func parse(flags *flag.FlagSet, args []string) error {
	if err := flags.Parse(args); err != nil {
		return fmt.Errorf("%w: %w", ErrUsage, err)
	}
	if flags.NArg() > 0 {
		return fmt.Errorf("%w: unexpected %q", ErrUsage, flags.Args())
	}
	return nil
}

func runCompare(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("compare", flag.ContinueOnError)
	var c comparisonConfig
	wg := flags.String("wireguard", "", "`name` of the lab with Sealane and WireGuard lanes")
	vx := flags.String("vxlan", "", "`name` of the lab with Sealane and VXLAN lanes")
	fl := flags.String("flannel", "", "`name` of the lab with flannel, none: without")
	flags.StringVar(&c.lab, "lab", "test/lab/lab", "the lab's `program`")
	flags.StringVar(&c.wireguardGo, "wireguard-go", "wireguard-go", "upstream's `program`")
	flags.StringVar(&c.version, "version", "unknown", "what is measured")
	flags.StringVar(&c.output, "o", "", "also write the report to this `file`")
	flags.IntVar(&c.rounds, "rounds", 1, "how often everything is measured")
	flags.DurationVar(&c.limits.length, "for", time.Second, "length of each stream")
	flags.IntVar(&c.limits.adds, "adds", 10, "pods added one by one")
	flags.IntVar(&c.limits.pods, "pods", 5, "pods added at once")
	if err := parse(flags, args); err != nil {
		return err
	}
	c.labs = map[string]string{wireguard: *wg, vxlan: *vx, flannel: *fl}
	if *wg == "" || *vx == "" || *fl == "" || c.rounds < 1 || c.limits.adds < 1 || c.limits.pods < 1 {
		return fmt.Errorf("%w: compare wants the names of three labs, and at least one of each thing to measure", ErrUsage)
	}
	return compare(ctx, c, os.Stdout, os.Stderr)
}

func runCNI(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("cni", flag.ContinueOnError)
	parallel := flags.Int("parallel", 1, "how many at a time")
	if err := parse(flags, args); err != nil {
		return err
	}
	if *parallel < 1 {
		return fmt.Errorf("%w: cni wants at least one pod at a time", ErrUsage)
	}
	pods, err := readIdentities(os.Stdin)
	if err != nil {
		return err
	}
	t, err := timePods(ctx, pods, *parallel)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(t)
}

func runServe(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("serve", flag.ContinueOnError)
	port := flags.Int("port", roundTripPort, "TCP port")
	if err := parse(flags, args); err != nil {
		return err
	}
	return serveRoundTrips(ctx, *port, os.Stdout)
}

func runRoundTrips(ctx context.Context, args []string) error {
	flags := flag.NewFlagSet("roundtrips", flag.ContinueOnError)
	var to netip.AddrPort
	flags.TextVar(&to, "to", netip.AddrPort{}, "`address:port` of the server, IPv4")
	length := flags.Duration("for", time.Second, "how long")
	connect := flags.Bool("connect", false, "a connection per round trip")
	if err := parse(flags, args); err != nil {
		return err
	}
	if !to.Addr().Is4() {
		return fmt.Errorf("%w: -to wants an IPv4 address and a port", ErrUsage)
	}
	q, err := measureRoundTrips(ctx, to, *length, *connect)
	if err != nil {
		return err
	}
	return json.NewEncoder(os.Stdout).Encode(q)
}
