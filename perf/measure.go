// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"time"

	"github.com/sealane/sealane/perf/netnsexec"
)

// roundTripPort is where the server of round trips listens, beside iperf3's 5201.
const roundTripPort = 5202

// subject is one of the things that are compared.
type subject struct {
	name  string
	paths map[string]netnsexec.Path // "same" and "cross"; a bare limit has only one
	cni   func(ctx context.Context, pods, parallel int) (cniTimes, error)
}

// limits say how much is measured in each step.
type limits struct {
	length time.Duration // of each stream
	adds   int           // pods added one by one
	pods   int           // pods added at once
}

// step is one thing that is done to every subject that can take it.
type step struct {
	name string
	run  func(ctx context.Context, s subject, l limits) (map[string]float64, error)
	path string // that the subject must have; empty: it must have a CNI plugin
}

func (s step) fits(to subject) bool {
	if s.path == "" {
		return to.cni != nil
	}
	_, ok := to.paths[s.path]
	return ok
}

// steps returns what is done in a round. Between the two that make pods lies more
// time than an address rests before it is used again (30 s), or a node would run
// out of them.
func steps() []step {
	all := []step{{name: "pods one by one", run: podsOneByOne}}
	all = append(all, trafficSteps("same")...)
	all = append(all, step{name: "pods at once", run: podsAtOnce})
	return append(all, trafficSteps("cross")...)
}

func trafficSteps(path string) []step {
	return []step{
		{path + " TCP, 1 stream", tcpOne(path), path},
		{path + " TCP, 8 streams", tcpEight(path), path},
		{path + " UDP, 64 bytes", udp(path, 64), path},
		{path + " UDP, 1,400 bytes", udp(path, 1400), path},
		{path + " request-response", roundTrips(path, "rr"), path},
		{path + " connect-request-response", roundTrips(path, "crr"), path},
	}
}

type runner = func(context.Context, subject, limits) (map[string]float64, error)

func tcpOne(name string) runner {
	return func(ctx context.Context, s subject, l limits) (map[string]float64, error) {
		idle, err := idleLoad(ctx, min(l.length, time.Second))
		if err != nil {
			return nil, err
		}
		m, err := measureIperf(ctx, s.paths[name], l.length)
		if err != nil {
			return nil, err
		}
		received := m.report.End.Received
		return map[string]float64{
			name + "/tcp1": received.BitsPerSecond / 1e9,
			name + "/cpu":  cpuPerGB(m.busy, m.wall, idle, received.Bytes),
		}, nil
	}
}

func tcpEight(name string) runner {
	return func(ctx context.Context, s subject, l limits) (map[string]float64, error) {
		m, err := measureIperf(ctx, s.paths[name], l.length, "--parallel=8")
		return map[string]float64{name + "/tcp8": m.report.End.Received.BitsPerSecond / 1e9}, err
	}
}

func udp(name string, size int) runner {
	return func(ctx context.Context, s subject, l limits) (map[string]float64, error) {
		m, err := measureIperf(ctx, s.paths[name], l.length, "--udp", "--bitrate=0", fmt.Sprintf("--length=%d", size))
		if err != nil {
			return nil, err
		}
		rate, err := m.report.packetRate()
		return map[string]float64{fmt.Sprintf("%s/udp%d", name, size): rate / 1e3}, err
	}
}

// transfer is what a run of iperf3 has told and cost.
type transfer struct {
	report     iperfReport
	busy, wall time.Duration
}

func measureIperf(ctx context.Context, p netnsexec.Path, length time.Duration, args ...string) (transfer, error) {
	var t transfer
	stop, err := netnsexec.Serve(ctx, p.Server, "iperf3", "--server", "--one-off", "--forceflush")
	if err != nil {
		return t, err
	}
	defer stop()
	seconds := strconv.Itoa(max(1, int(length.Seconds())))
	argv := append([]string{"iperf3", "--json", "--client=" + p.To.String(), "--time=" + seconds}, args...)
	before, err := busyTime()
	if err != nil {
		return t, err
	}
	start := time.Now()
	out, err := p.Client.Run(ctx, argv...)
	if err != nil {
		return t, err
	}
	t.wall = time.Since(start)
	after, err := busyTime()
	if err != nil {
		return t, err
	}
	t.busy = after - before
	t.report, err = parseIperf(out)
	return t, err
}

// idleLoad returns how many processors are busy while nothing is measured.
func idleLoad(ctx context.Context, length time.Duration) (float64, error) {
	before, err := busyTime()
	if err != nil {
		return 0, err
	}
	timer := time.NewTimer(length)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return 0, ctx.Err()
	case <-timer.C:
	}
	after, err := busyTime()
	return (after - before).Seconds() / length.Seconds(), err
}

// roundTrips measures round trips on one connection ("rr") or on new ones ("crr").
func roundTrips(name, kind string) runner {
	return func(ctx context.Context, s subject, l limits) (map[string]float64, error) {
		self, err := os.Executable()
		if err != nil {
			return nil, err
		}
		p := s.paths[name]
		stop, err := netnsexec.Serve(ctx, p.Server, self, "serve", "-port="+strconv.Itoa(roundTripPort))
		if err != nil {
			return nil, err
		}
		defer stop()
		out, err := p.Client.Run(ctx, self, "roundtrips", fmt.Sprintf("-to=%s:%d", p.To, roundTripPort),
			"-for="+l.length.String(), fmt.Sprintf("-connect=%t", kind == "crr"))
		if err != nil {
			return nil, err
		}
		var q quantiles
		err = json.Unmarshal(out, &q)
		id := name + "/" + kind
		return map[string]float64{id + "50": microseconds(q.P50), id + "99": microseconds(q.P99)}, err
	}
}

func podsOneByOne(ctx context.Context, s subject, l limits) (map[string]float64, error) {
	t, err := s.cni(ctx, l.adds, 1)
	return t.cells("cni/one"), err
}

func podsAtOnce(ctx context.Context, s subject, l limits) (map[string]float64, error) {
	t, err := s.cni(ctx, l.pods, l.pods)
	return t.cells("cni/all"), err
}

func microseconds(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

func milliseconds(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }
