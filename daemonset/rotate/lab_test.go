// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
	"github.com/sealane/sealane/keymgr/keytest"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay/wireguard/process"
)

// patience bounds every wait for an event. A rotation takes some six seconds on a
// machine that has nothing else to do.
const patience = 5 * time.Minute

// period makes all waiting times of rotations short, but leaves an emulated machine
// the time to rotate before the next key is due.
func period() time.Duration {
	if testing.Short() {
		return 4 * time.Minute
	}
	return time.Minute
}

// lab is a cluster: nodes that are namespaces on one bridge, and what stands for
// the API server.
type lab struct {
	t     *testing.T // the subtest
	whole *testing.T
	wire  *nettest.NS
	nodes []*labNode
	// kernel says that WireGuard is in the kernel.
	kernel bool

	mu      sync.Mutex // guards all below, and what nodes know and tell
	changed chan struct{}
	delay   func(reader, author *labNode) time.Duration
	sent    int // statements
}

type labNode struct {
	lab    *lab
	ns     *nettest.NS
	live   keymgr.LiveNode
	pod    netip.Addr
	dir    string
	socket string
	log    *output
	// impaired is set on a node whose packets meet a bad network.
	impaired *nettest.Impaired

	// carries is the process of WireGuard, where the kernel has none.
	carries *os.Process
	daemon  *exec.Cmd
	in      io.WriteCloser
	ended   chan struct{} // closed at the daemon's end

	// guarded by the lab's lock
	news   news
	order  map[string]int // of the statements in news
	report report
}

func newLab(t *testing.T, size int) *lab {
	t.Helper()
	nettest.Privileged(t)
	l := &lab{t: t, whole: t, wire: nettest.NewNS(t), changed: make(chan struct{})}
	l.delay = func(*labNode, *labNode) time.Duration { return 50 * time.Millisecond }
	l.wire.Run("ip", "link", "add", "br0", "type", "bridge")
	l.wire.Run("ip", "link", "set", "br0", "up")
	clock := keytest.NewClock()
	clock.Add(time.Since(clock.Now()))
	cluster := keytest.NewClusterWith(t, clock, ca.Config{Store: memorystore.New(), Clock: clock.Now})
	for i := range size {
		l.nodes = append(l.nodes, l.newNode(cluster, i+1))
	}
	var err error
	if l.kernel, err = l.nodes[0].ns.Handle().HasWireGuard(); err != nil {
		t.Fatal(err)
	}
	for _, n := range l.nodes {
		if !l.kernel {
			n.startLanes()
		}
		n.start()
	}
	return l
}

func (l *lab) newNode(c *keytest.Cluster, i int) *labNode {
	t := l.t
	name := string(rune('a' + i - 1))
	n := &labNode{lab: l, ns: nettest.NewNS(t), dir: t.TempDir(), log: &output{}, order: map[string]int{}}
	n.news.Keys = map[string]keymgr.Signed{}
	n.pod = netip.MustParseAddr(fmt.Sprintf("10.0.%d.5", i))
	n.live = keymgr.LiveNode{
		ID: keytest.ID(name), Addresses: []netip.Addr{netip.MustParseAddr(fmt.Sprintf("192.0.2.%d", i))},
		PodCIDRs: []netip.Prefix{netip.MustParsePrefix(fmt.Sprintf("10.0.%d.0/24", i))},
	}
	port := "port" + name
	nettest.Wire(t, nettest.End{NS: l.wire, Name: port}, nettest.End{
		NS: n.ns, Name: "eth0", Addresses: []netip.Prefix{netip.PrefixFrom(n.live.Addresses[0], 24)},
	})
	l.wire.Run("ip", "link", "set", port, "master", "br0")
	n.ns.Run("ip", "addr", "add", n.pod.String(), "dev", "lo")
	n.ns.Isolate("/var/run/wireguard")
	n.socket = filepath.Join(t.TempDir(), "wireguard.sock")
	k := &keytest.Node{Live: n.live, Identity: c.Identity(n.live.ID, n.dir)}
	c.Certify(k)
	if err := k.Identity.SaveBundle(c.Authority.Bundle()); err != nil {
		t.Fatal(err)
	}
	return n
}

// program starts the test binary as something else in the node's namespaces.
func (n *labNode) program(what, settings string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		n.lab.t.Fatal(err)
	}
	cmd := n.ns.Command(self)
	cmd.Env = append(os.Environ(), asProgram+"="+what, asSettings+"="+settings)
	cmd.Stderr = n.log
	return cmd
}

func (n *labNode) startLanes() {
	t := n.lab.t
	cmd := n.program(laneProgram, n.socket)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	n.carries = cmd.Process
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	select {
	case <-process.Client{Socket: n.socket}.Watch(t.Context()):
	case <-time.After(patience):
		t.Fatalf("%s: WireGuard does not answer:\n%s", n.live.ID.Name, n.log.tail())
	}
}

// start starts the daemon and tells it all there is.
func (n *labNode) start() {
	t := n.lab.t
	t.Helper()
	s := settings{Dir: n.dir, Socket: n.socket, Period: period(), Self: n.live}
	for _, o := range n.lab.nodes {
		s.Nodes = append(s.Nodes, o.live)
	}
	text, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	n.daemon = n.program(daemonProgram, string(text))
	in, err := n.daemon.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := n.daemon.StdoutPipe()
	if err == nil {
		err = n.daemon.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	daemon, ended := n.daemon, make(chan struct{})
	n.ended = ended
	go func() {
		defer close(ended)
		n.listen(out)
		_ = daemon.Wait()
	}()
	n.lab.whole.Cleanup(func() { _ = in.Close(); _ = daemon.Process.Kill(); <-ended })
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	n.in, n.report = in, report{}
	n.tellLocked()
}

// listen takes in what the daemon tells.
func (n *labNode) listen(out io.Reader) {
	in := json.NewDecoder(out)
	for {
		var r report
		if in.Decode(&r) != nil {
			return
		}
		n.lab.mu.Lock()
		n.report = r
		if len(r.Signed.Payload) > 0 && !r.Signed.Equal(n.news.Keys[n.live.ID.Name]) {
			n.lab.publishLocked(n, r.Signed)
		}
		close(n.lab.changed)
		n.lab.changed = make(chan struct{})
		n.lab.mu.Unlock()
	}
}

// publishLocked shows a statement to its author at once, and to the others later.
func (l *lab) publishLocked(author *labNode, s keymgr.Signed) {
	l.sent++
	order := l.sent
	author.learnLocked(author, s, order)
	for _, reader := range l.nodes {
		if reader == author {
			continue
		}
		time.AfterFunc(l.delay(reader, author), func() {
			l.mu.Lock()
			defer l.mu.Unlock()
			reader.learnLocked(author, s, order)
		})
	}
}

func (n *labNode) learnLocked(author *labNode, s keymgr.Signed, order int) {
	name := author.live.ID.Name
	if n.order[name] > order {
		return
	}
	n.order[name], n.news.Keys[name] = order, s
	n.tellLocked()
}

func (n *labNode) tellLocked() {
	text, err := json.Marshal(n.news)
	if err == nil && n.in != nil {
		_, _ = n.in.Write(append(text, '\n')) // a daemon that has died gets all when it is back
	}
}

// tell changes what a daemon is told.
func (n *labNode) tell(change func(*news)) {
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	change(&n.news)
	n.tellLocked()
}

func (n *labNode) shown() report {
	n.lab.mu.Lock()
	defer n.lab.mu.Unlock()
	return n.report
}

// request asks nodes for new keys. Requests have whole seconds, like keys.
func (l *lab) request(nodes ...*labNode) {
	at := time.Now().Truncate(time.Second)
	for _, n := range nodes {
		if since := n.shown().newest().Since; !since.Before(at) {
			at = since.Add(time.Second)
		}
	}
	<-time.After(time.Until(at))
	for _, n := range nodes {
		n.tell(func(s *news) { s.Request = cluster.RotationRequest{At: at} })
	}
}

// await waits until something is so, and shows everything if it does not get so.
func (l *lab) await(what string, is func() bool) {
	l.t.Helper()
	timeout := time.After(patience)
	for {
		l.mu.Lock()
		changed := l.changed
		l.mu.Unlock()
		if is() {
			return
		}
		select {
		case <-changed:
		case <-timeout:
			l.t.Fatalf("not so after %s: %s\n%s", patience, what, l.describe())
		}
	}
}

func (l *lab) describe() string {
	var b strings.Builder
	for _, n := range l.nodes {
		r := n.shown()
		r.Signed = keymgr.Signed{}
		text, _ := json.Marshal(r)
		fmt.Fprintf(&b, "%s: %s\n%s\n", n.live.ID.Name, text, n.log.tail())
	}
	return b.String()
}

// settled waits until the nodes have done with rotations, their newest keys being
// at least those of the marks, and everybody uses these both ways.
func (l *lab) settled(marks map[*labNode]uint64) {
	l.t.Helper()
	l.await("all keys rotated and in use", func() bool {
		for _, n := range l.nodes {
			r := n.shown()
			if r.State != rotation.Steady || len(r.Keys) != 1 || r.newest().Generation < marks[n] {
				return false
			}
			for _, o := range l.nodes {
				if o != n && r.Active[o.live.ID.UID] != (rotation.Pair{Own: r.newest().Generation, Peer: o.shown().newest().Generation}) {
					return false
				}
			}
		}
		return true
	})
}

// next are the generations that come next on some nodes.
func next(nodes ...*labNode) map[*labNode]uint64 {
	marks := map[*labNode]uint64{}
	for _, n := range nodes {
		marks[n] = n.shown().newest().Generation + 1
	}
	return marks
}

// rotate asks nodes for new keys and waits until all of them are in use.
func (l *lab) rotate(nodes ...*labNode) {
	l.t.Helper()
	marks := next(nodes...)
	l.request(nodes...)
	l.settled(marks)
}

// pairings counts the exchanges of a node with some result.
func (n *labNode) pairings(role string, results ...string) (count uint64) {
	for _, p := range n.shown().Pairings {
		if p.Role == role && slices.Contains(results, p.Result) {
			count += p.Count
		}
	}
	return count
}

// output is what a node's programs write.
type output struct {
	mu  sync.Mutex // guards buf
	buf bytes.Buffer
}

func (l *output) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *output) tail() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := strings.SplitAfter(l.buf.String(), "\n")
	return strings.Join(lines[max(0, len(lines)-60):], "")
}
