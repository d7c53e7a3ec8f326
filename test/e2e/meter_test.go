// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"bufio"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"
)

// flow and report are what test/meter prints.
type flow struct {
	Sent, Received, Lost, Reordered int
	GapMS, StallMS                  float64
	Bytes, RcvbufErrors             int
}

type report struct{ Out, In flow }

// mesh is a pod on each node that measures against all others.
type mesh struct {
	ns    string
	nodes []string
	ips   map[string][]string // by node, which the pods are named after
}

// newMesh starts the pods. The meter is put into them, for there is no image of it.
func newMesh(t testing.TB, ns string) mesh {
	t.Helper()
	m := mesh{ns: namespace(t, ns), nodes: nodes(t)}
	binary := filepath.Join(t.TempDir(), "meter")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./test/meter")
	build.Dir, build.Env = root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build meter: %v\n%s", err, out)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	// It is the second container's main process, as soon as it is there.
	script := `until [ -x /tmp/meter ]; do sleep 0.1; done; exec /tmp/meter serve :9000`
	container := fmt.Sprintf("  - {name: meter, image: %q, imagePullPolicy: Never, command: [bash, -c, %q]}\n", image, script)
	var pods []pod
	for _, n := range m.nodes {
		pods = append(pods, pod{Name: n, Node: n, Extra: container})
	}
	m.ips = start(t, m.ns, pods...)
	for _, n := range m.nodes {
		if _, err := m.exec(t, n, string(program), "cat >/tmp/part && chmod +x /tmp/part && mv /tmp/part /tmp/meter"); err != nil {
			t.Fatal(err)
		}
		eventually(t, 30*time.Second, "meter serves on "+n, func() error {
			_, err := m.exec(t, n, "", "</dev/tcp/127.0.0.1/9000")
			return err
		})
	}
	return m
}

// exec runs a shell command beside the meter of a node.
func (m mesh) exec(t testing.TB, node, stdin, script string) (string, error) {
	t.Helper()
	return lab(t.Context(), stdin, "kubectl", "-n", m.ns, "exec", "-i", node, "-c", "meter", "--", "bash", "-c", script)
}

// pps is how many packets per second each pod sends to each other one.
func pps() int {
	if n, err := strconv.Atoi(os.Getenv("SEALANE_E2E_PPS")); err == nil {
		return n
	}
	return 2000
}

// under lets something happen while every pair of pods measures for the given
// seconds, and fails the test if a packet was lost that found no full queue. The
// direction is both, out or in, as the meter has it.
func (m mesh) under(t *testing.T, seconds int, direction string, happen func()) {
	t.Helper()
	queues := m.watchQueues(t)
	var wg sync.WaitGroup
	var mu sync.Mutex // guards all below
	lost, buffers := 0, 0
	// Each is the client of the next, so that every server has one client.
	for i, from := range m.nodes {
		to := m.nodes[(i+1)%len(m.nodes)]
		wg.Go(func() {
			r, err := m.measure(t, from, to, fmt.Sprintf("-pps %d -seconds %d -direction %s", pps(), seconds, direction))
			mu.Lock()
			defer mu.Unlock()
			if err != nil {
				t.Errorf("%s to %s: %v", from, to, err)
				return
			}
			t.Logf("%s > %s: %s", from, to, r.Out)
			t.Logf("%s < %s: %s", from, to, r.In)
			lost += r.Out.Lost + r.In.Lost
			buffers += r.Out.RcvbufErrors + r.In.RcvbufErrors
			if want := pps() * 3 / 4 * seconds; direction != "in" && r.Out.Sent < want || direction != "out" && r.In.Sent < want {
				t.Errorf("%s and %s: fewer than %d packets sent", from, to, want)
			}
		})
	}
	for _, n := range m.nodes {
		eventually(t, time.Minute, "the measurement runs on "+n, func() error {
			_, err := m.exec(t, n, "", "grep -qaE 'meter[^.]run' /proc/[0-9]*/cmdline")
			return err
		})
	}
	happen()
	wg.Wait()
	full := queues.total()
	t.Logf("lost %d; queues that were full: %d of the pods' sockets, %d of lanes and nodes", lost, buffers, full)
	if lost > full+buffers {
		t.Errorf("lost %d packets, and only %d found a full queue", lost, full+buffers)
	}
}

func (f flow) String() string {
	return fmt.Sprintf("sent %d, lost %d, reordered %d, longest gap %.0f ms, longest TCP stall %.0f ms, RcvbufErrors %d",
		f.Sent, f.Lost, f.Reordered, f.GapMS, f.StallMS, f.RcvbufErrors)
}

// measure runs a meter, which is left to itself until it has ended: a stream through the API server for all that time
// would break when that stands still.
func (m mesh) measure(t testing.TB, from, to, flags string) (r report, err error) {
	t.Helper()
	target := bracketed(m.ips[to][0]) + ":9000"
	run := "rm -f /tmp/report; (/tmp/meter run " + flags + " " + target + " >/tmp/running 2>&1; mv /tmp/running /tmp/report) </dev/null >/dev/null 2>&1 &"
	if _, err := m.exec(t, from, "", run); err != nil {
		return r, err
	}
	out := ""
	for deadline := time.Now().Add(5 * time.Minute); ; {
		if out, err = m.exec(t, from, "", "cat /tmp/report"); err == nil {
			break
		}
		select {
		case <-t.Context().Done():
			return r, t.Context().Err()
		case <-time.After(time.Second):
		}
		if time.Now().After(deadline) {
			return r, fmt.Errorf("no report: %w", err)
		}
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return r, fmt.Errorf("read report %q: %w", tail(out), err)
	}
	return r, nil
}

// queues counts what finds a full queue on the nodes: lane devices, the lanes'
// sockets, the kernel's backlog. Devices come and go with the keys, and their
// counters with them, so that it looks all the time.
type queues struct {
	stop chan struct{}
	full chan int
}

// queueCounters prints, for each line that it reads, the name and the value of each counter of a node, devices by their
// index, and then a dot. It starts no process, not to be what keeps the machine busy.
const queueCounters = `shopt -s nullglob
while read -r _; do
	while read -r name _ _ _ _ errors _; do [[ $name$errors != Udp:[0-9]* ]] || echo udp4 $errors; done </proc/net/snmp
	while read -r name errors; do [[ $name != Udp6RcvbufErrors ]] || echo udp6 $errors; done </proc/net/snmp6
	for device in /sys/class/net/sealane-*; do
		read -r index <$device/ifindex && read -r rx <$device/statistics/rx_dropped && read -r tx <$device/statistics/tx_dropped &&
			echo RX$index $rx && echo TX$index $tx
	done 2>/dev/null
	n=0; while read -r _ dropped _; do n=$((n+16#$dropped)); done </proc/net/softnet_stat; echo softnet $n
	echo .
done`

func (m mesh) watchQueues(t testing.TB) *queues {
	t.Helper()
	q := &queues{stop: make(chan struct{}), full: make(chan int, 1)}
	var watches []*queueWatch
	for _, n := range m.nodes {
		w, err := newQueueWatch(t.Context(), n)
		if err != nil {
			t.Fatalf("watch the queues of %s: %v", n, err)
		}
		watches = append(watches, w)
	}
	growth := func() (grown int) {
		for i, w := range watches {
			n, err := w.growth()
			if err != nil {
				t.Errorf("read counters of %s: %v", m.nodes[i], err)
			}
			grown += n
		}
		return grown
	}
	growth() // takes the marks
	grown := 0
	go func() {
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-q.stop:
				grown += growth()
				for i, w := range watches {
					if err := w.end(); err != nil {
						t.Errorf("watch the queues of %s: %v", m.nodes[i], err)
					}
				}
				q.full <- grown
				return
			case <-tick.C:
				grown += growth()
			}
		}
	}()
	return q
}

func (q *queues) total() int {
	close(q.stop)
	return <-q.full
}

// queueWatch is a shell on a node that prints its counters when it is asked.
type queueWatch struct {
	cmd  *exec.Cmd
	ask  io.WriteCloser
	told *bufio.Scanner
	seen map[string]int
}

func newQueueWatch(ctx context.Context, node string) (*queueWatch, error) {
	program, err := labProgram()
	if err != nil {
		return nil, err
	}
	w := &queueWatch{cmd: exec.CommandContext(ctx, program, "sh", node, "bash", "-c", queueCounters), seen: map[string]int{}}
	w.cmd.WaitDelay = 5 * time.Second
	w.cmd.Stderr = os.Stderr
	if w.ask, err = w.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := w.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	w.told = bufio.NewScanner(out)
	return w, w.cmd.Start()
}

// growth is by how much all counters together have grown since the last look.
func (w *queueWatch) growth() (grown int, err error) {
	if _, err := w.ask.Write([]byte("\n")); err != nil {
		return 0, err
	}
	for w.told.Scan() {
		line := w.told.Text()
		if line == "." {
			return grown, nil
		}
		var name string
		var value int
		if k, _ := fmt.Sscan(line, &name, &value); k != 2 {
			return grown, fmt.Errorf("counter %q: want a name and a number", line)
		}
		grown += max(0, value-w.seen[name])
		w.seen[name] = value
	}
	return grown, cmp.Or(w.told.Err(), io.ErrUnexpectedEOF)
}

func (w *queueWatch) end() error { return errors.Join(w.ask.Close(), w.cmd.Wait()) }
