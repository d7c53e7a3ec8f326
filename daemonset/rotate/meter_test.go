// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"bufio"
	"context"
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

// direction says which pairs of nodes send.
type direction bool

const (
	bothWays direction = false
	oneWay   direction = true // each node to the next one
)

// flow sends numbered packets from one node's pod to another's.
type flow struct {
	from, to                             *labNode
	out, in                              *net.UDPConn
	sent, received, reordered, duplicate int
	gap                                  time.Duration // longest time without a packet
	refused                              int           // by this node's own routes
}

func (f *flow) String() string {
	return fmt.Sprintf("%s > %s: sent %d, lost %d, reordered %d, twice %d, refused %d, longest gap %d ms", f.from.live.ID.Name, f.to.live.ID.Name,
		f.sent, f.sent-f.received, f.reordered, f.duplicate, f.refused, f.gap.Milliseconds())
}

// pps is how many packets per second each flow sends.
func pps() int {
	if n, err := strconv.Atoi(os.Getenv("SEALANE_METER_PPS")); err == nil && n > 0 {
		return n
	}
	return 1000
}

// under lets something happen while pods send, and fails the test if a packet was
// lost that found no full queue.
func (l *lab) under(t *testing.T, d direction, happen func()) {
	t.Helper()
	var flows []*flow
	for i, from := range l.nodes {
		for j, to := range l.nodes {
			if d == bothWays && i != j || d == oneWay && j == (i+1)%len(l.nodes) {
				flows = append(flows, l.newFlow(t, from, to))
			}
		}
	}
	queues := l.watchQueues()
	defer queues.total()
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	start := time.Now()
	var senders, receivers sync.WaitGroup
	done := make(chan struct{}) // nobody sends any more
	for _, f := range flows {
		receivers.Go(func() { f.receive(done) })
		senders.Go(func() { f.send(ctx) })
	}
	happen()
	seconds := time.Since(start).Seconds()
	stop()
	senders.Wait()
	close(done)
	receivers.Wait()
	full := queues.total()
	total := flow{}
	for _, f := range flows {
		t.Log(f)
		total.sent, total.received, total.reordered = total.sent+f.sent, total.received+f.received, total.reordered+f.reordered
		if f.sent < int(seconds*float64(pps())/5) { // a busy machine may be slow, not silent
			t.Errorf("%s: fewer than a fifth of the packets were sent in %.0f s", f, seconds)
		}
	}
	lost := total.sent - total.received
	t.Logf("%.1f s, %d packets, %d lost, %d reordered, %d found a full queue", seconds, total.sent, lost, total.reordered, full)
	if lost > full {
		t.Errorf("lost %d packets, and only %d found a full queue\n%s", lost, full, l.describe())
	}
}

func (l *lab) newFlow(t *testing.T, from, to *labNode) *flow {
	t.Helper()
	f := &flow{from: from, to: to}
	var err error
	open := func(n *labNode) (c *net.UDPConn) {
		n.ns.Do(func() {
			if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.pod, 0))); err == nil {
				err = c.SetReadBuffer(4 << 20)
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	f.out, f.in = open(from), open(to)
	return f
}

// send keeps to the rate on average.
func (f *flow) send(ctx context.Context) {
	to := f.in.LocalAddr().(*net.UDPAddr).AddrPort()
	packet := make([]byte, 200)
	tick := time.NewTicker(2 * time.Millisecond)
	defer tick.Stop()
	credit, last := 0.0, time.Now()
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-tick.C:
			// What a busy machine kept it from sending it does not make up for in one
			// burst.
			credit = min(credit+now.Sub(last).Seconds()*float64(pps()), 20)
			for last = now; credit >= 1; credit-- {
				binary.BigEndian.PutUint64(packet, uint64(f.sent))
				f.sent++
				if _, err := f.out.WriteToUDPAddrPort(packet, to); err != nil {
					f.refused++
				}
			}
		}
	}
}

// receive ends when all has come that was sent, or nothing of the rest comes for
// seconds after the end.
func (f *flow) receive(done <-chan struct{}) {
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		<-done
		_ = f.in.SetReadDeadline(time.Now()) // wakes the reader
	}()
	got := arrivals{seen: map[uint64]bool{}, last: time.Now()}
	over := false
	buf := make([]byte, 2048)
	for !over || f.received < f.sent {
		n, _, err := f.in.ReadFromUDPAddrPort(buf)
		switch {
		case err == nil && n >= 8:
			f.count(&got, binary.BigEndian.Uint64(buf))
		case err != nil && over:
			return
		case err != nil:
			<-ended
			over = true
			_ = f.in.SetReadDeadline(time.Now().Add(3 * time.Second))
		}
	}
}

// arrivals is what a receiver knows of the packets so far.
type arrivals struct {
	seen    map[uint64]bool
	highest uint64
	last    time.Time
}

func (f *flow) count(a *arrivals, seq uint64) {
	now := time.Now()
	f.gap, a.last = max(f.gap, now.Sub(a.last)), now
	if a.seen[seq] {
		f.duplicate++
		return
	}
	if seq < a.highest {
		f.reordered++
	}
	a.seen[seq], a.highest = true, max(a.highest, seq)
	f.received++
}

// queues counts what finds a full queue: sockets, devices. Lanes come and go, and
// their counters with them, so that it looks all the time.
type queues struct {
	lab  *lab
	seen map[string]int
	// total ends the watch and returns the sum.
	total func() int
}

func (l *lab) watchQueues() *queues {
	q := &queues{lab: l, seen: map[string]int{}}
	q.grown() // takes the marks
	stop, full := make(chan struct{}), make(chan int)
	q.total = sync.OnceValue(func() int {
		close(stop)
		return <-full
	})
	go func() {
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		total := 0
		for {
			select {
			case <-stop:
				full <- total + q.grown()
				return
			case <-tick.C:
				total += q.grown()
			}
		}
	}()
	return q
}

// grown is by how much all counters together have grown since the last look.
func (q *queues) grown() (grown int) {
	for i, ns := range append([]int{-1}, indexes(q.lab.nodes)...) {
		read := func() {
			for name, value := range q.lab.counters() {
				name = fmt.Sprint(i, name)
				grown += max(0, value-q.seen[name])
				q.seen[name] = value
			}
		}
		if ns < 0 {
			q.lab.wire.Do(read)
		} else {
			q.lab.nodes[ns].ns.Do(read)
		}
	}
	return grown
}

func indexes[T any](list []T) (out []int) {
	for i := range list {
		out = append(out, i)
	}
	return out
}

// counters reads those of the thread's namespace. What WireGuard in the kernel drops
// counts for nothing: it also does when a session is missing.
func (l *lab) counters() map[string]int {
	out := map[string]int{}
	for _, file := range []string{"snmp", "dev"} {
		f, err := os.Open("/proc/thread-self/net/" + file)
		if err != nil {
			continue
		}
		for in := bufio.NewScanner(f); in.Scan(); {
			words := strings.Fields(in.Text())
			switch {
			case len(words) > 5 && words[0] == "Udp:":
				out["udp"], _ = strconv.Atoi(words[5])
			case len(words) > 12 && strings.HasSuffix(words[0], ":") && (!l.kernel || !strings.HasPrefix(words[0], "sealane-")):
				rx, _ := strconv.Atoi(words[4])
				tx, _ := strconv.Atoi(words[12])
				out[words[0]] = rx + tx
			}
		}
		_ = f.Close()
	}
	return out
}
