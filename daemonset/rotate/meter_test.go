// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"bufio"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nettest"
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

// add makes a sum of flows.
func (f *flow) add(o flow) {
	f.sent, f.received, f.reordered = f.sent+o.sent, f.received+o.received, f.reordered+o.reordered
}

// pps is how many packets per second each flow sends.
func pps() int {
	if n, err := strconv.Atoi(os.Getenv("SEALANE_METER_PPS")); err == nil && n > 0 {
		return n
	}
	if testing.Short() {
		return 200
	}
	return 1000
}

// floor is how many packets per second each flow has to reach at least: a fifth of
// the rate, since a busy machine may be slow, not silent. It is higher where time
// is simulated.
func floor() float64 {
	if n, err := strconv.Atoi(os.Getenv("SEALANE_METER_FLOOR")); err == nil && n > 0 {
		return float64(n)
	}
	return float64(pps()) / 5
}

// load is what pods send to each other: numbered packets and TCP, in each direction.
type load struct {
	flows   []*flow
	streams []*stream
}

func (l *lab) newLoad(t *testing.T, d direction) (all load) {
	t.Helper()
	for i, from := range l.nodes {
		for j, to := range l.nodes {
			switch {
			case d == bothWays && i != j:
				all.flows = append(all.flows, l.newFlow(t, from, to))
				all.streams = append(all.streams, l.newStream(t, from, to))
			case d == oneWay && j == (i+1)%len(l.nodes) && (len(l.nodes) > 2 || i == 0):
				// No stream: its acknowledgements go the other way.
				all.flows = append(all.flows, l.newFlow(t, from, to))
			}
		}
	}
	return all
}

// during sends while something happens, and until all of it has come.
func (all load) during(ctx context.Context, happen func()) time.Duration {
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	start := time.Now()
	var senders, receivers sync.WaitGroup
	done := make(chan struct{}) // nobody sends any more
	for _, f := range all.flows {
		receivers.Go(func() { f.receive(done) })
		senders.Go(func() { f.send(ctx) })
	}
	for _, s := range all.streams {
		receivers.Go(func() { s.receive(done) })
		senders.Go(func() { s.send(ctx) })
	}
	happen()
	took := time.Since(start)
	stop()
	senders.Wait()
	close(done)
	receivers.Wait()
	return took
}

// under lets something happen while pods send, and fails the test if a packet was
// lost that found no full queue. It gives what was sent.
func (l *lab) under(t *testing.T, d direction, happen func()) (total flow) {
	t.Helper()
	all, before := l.newLoad(t, d), softnetDrops(t)
	queues := l.watchQueues()
	defer queues.total()
	seconds := all.during(t.Context(), happen).Seconds()
	full := queues.total()
	stall := time.Duration(0)
	for _, f := range all.flows {
		t.Log(f)
		total.add(*f)
		if f.sent == 0 || float64(f.sent) < seconds*floor() {
			t.Errorf("%s: %.0f packets/s in %.1f s, want %.0f", f, float64(f.sent)/seconds, seconds, floor())
		}
	}
	for _, s := range all.streams {
		s.check(t)
		stall = max(stall, s.stall)
	}
	full.softnet = softnetDrops(t) - before
	lost := total.sent - total.received
	t.Logf("%.1f s at %.0f of %d packets/s per flow: %d packets, %d lost, %d reordered, longest TCP stall %d ms; %s",
		seconds, float64(total.sent)/seconds/float64(len(all.flows)), pps(), total.sent, lost, total.reordered, stall.Milliseconds(), full)
	if excuse := full.excuse(l.kernel); lost > excuse {
		t.Errorf("lost %d packets, and only %d found a full queue\n%s", lost, excuse, l.describe())
	}
	return total
}

func (l *lab) newFlow(t *testing.T, from, to *labNode) *flow {
	t.Helper()
	f := &flow{from: from, to: to}
	var err error
	open := func(n *labNode) (c *net.UDPConn) {
		n.ns.Do(func() {
			if c, err = net.ListenUDP("udp4", net.UDPAddrFromAddrPort(netip.AddrPortFrom(n.pod, 0))); err == nil {
				err = roomy(c)
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

// roomy gives a socket a buffer that holds what arrives while an emulated processor
// stands still, whatever the system's limit.
func roomy(c *net.UDPConn) error {
	raw, err := c.SyscallConn()
	if err != nil {
		return err
	}
	var set error
	err = raw.Control(func(fd uintptr) { set = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 16<<20) })
	return errors.Join(err, set)
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

// full counts what found a full queue: a socket's, a bad network's, a processor's
// between interrupt and stack. What devices drop has other reasons, too.
type full struct{ sockets, netem, softnet, devices int }

func (f full) String() string {
	return fmt.Sprintf("full queues: RcvbufErrors %d, netem %d, softnet %d; dropped by devices %d", f.sockets, f.netem, f.softnet, f.devices)
}

// excuse is how many packets may be lost for want of room. Where WireGuard is a
// process, its TUN devices have queues.
func (f full) excuse(kernel bool) int {
	if kernel {
		return f.sockets + f.netem + f.softnet
	}
	return f.sockets + f.devices
}

// queues counts what finds a full queue: sockets, devices. Lanes come and go, and
// their counters with them, so that it looks all the time.
type queues struct {
	lab  *lab
	seen map[string]int
	// total ends the watch and returns the sum.
	total func() full
}

func (l *lab) watchQueues() *queues {
	q := &queues{lab: l, seen: map[string]int{}}
	var sum full
	q.look(&full{}) // takes the marks
	stop, ended := make(chan struct{}), make(chan struct{})
	q.total = sync.OnceValue(func() full {
		close(stop)
		<-ended
		return sum
	})
	go func() {
		defer close(ended)
		tick := time.NewTicker(250 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-stop:
				q.look(&sum)
				return
			case <-tick.C:
				q.look(&sum)
			}
		}
	}()
	return q
}

// look adds by how much the counters have grown since the last look.
func (q *queues) look(sum *full) {
	grown := func(name string, value int) int {
		by := max(0, value-q.seen[name])
		q.seen[name] = value
		return by
	}
	for i, ns := range append([]*nettest.NS{q.lab.wire}, namespaces(q.lab.nodes)...) {
		ns.Do(func() {
			for name, value := range q.lab.counters() {
				where := &sum.devices
				if name == udpSockets {
					where = &sum.sockets
				}
				*where += grown(fmt.Sprint(i, name), value)
			}
		})
	}
	for i, n := range q.lab.nodes {
		if n.impaired == nil {
			continue
		}
		if over, err := n.impaired.Overflowed(); err == nil {
			sum.netem += grown(fmt.Sprint(i, "netem"), over)
		}
	}
}

func namespaces(nodes []*labNode) (out []*nettest.NS) {
	for _, n := range nodes {
		out = append(out, n.ns)
	}
	return out
}

// udpSockets is the counter of what UDP sockets had no room for, among those that
// have the names of devices.
const udpSockets = "udp"

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
				out[udpSockets], _ = strconv.Atoi(words[5])
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

// softnetDrops counts what the whole machine has found no room for in the queue
// between interrupt and stack, on all its processors.
func softnetDrops(t *testing.T) (sum int) {
	t.Helper()
	text, err := os.ReadFile("/proc/net/softnet_stat")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if len(words) < 2 {
			t.Fatalf("softnet_stat: %q", line)
		}
		n, err := strconv.ParseInt(words[1], 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		sum += int(n)
	}
	return sum
}
