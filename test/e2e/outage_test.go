// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"
)

// load is what pods send to each other while something happens to a daemon:
// one UDP stream (2,000 packets a second) and one new TCP connection after the
// other. Both count what is lost.
type load struct {
	t        testing.TB
	ns       string
	udp, tcp chan error
}

// startLoad begins between the pods "client" and "server"; it lasts for the
// given seconds.
func startLoad(t testing.TB, ns, server string, seconds int) *load {
	t.Helper()
	l := &load{t: t, ns: ns, udp: make(chan error, 1), tcp: make(chan error, 1)}
	go func() { l.udp <- udpLoss(t, ns, server, seconds) }()
	go func() { l.tcp <- tcpFailures(t, ns, server, seconds) }()
	return l
}

func (l *load) wait() {
	l.t.Helper()
	for name, c := range map[string]chan error{"running flow (UDP)": l.udp, "new flows (TCP)": l.tcp} {
		if err := <-c; err != nil {
			l.t.Errorf("%s: %v", name, err)
		}
	}
}

// overflows is a shell script that prints how many packets found a full queue:
// sockets' buffers (the lanes' and the pods'), lane devices, and the kernel's
// backlog. A machine that is too busy loses packets there, whatever the daemon
// does; what is lost beyond them is lost by Sealane.
const overflows = `{ awk '$1 == "Udp:" && $2 ~ /^[0-9]/ {print $6}' /proc/net/snmp
awk '$1 == "Udp6RcvbufErrors" {print $2}' /proc/net/snmp6
cat /sys/class/net/sealane-*/statistics/tx_dropped /sys/class/net/sealane-*/statistics/rx_dropped 2>/dev/null
while read -r _ dropped _; do echo $((16#$dropped)); done </proc/net/softnet_stat; } | awk '{n += $1} END {print n + 0}'`

func countOverflows(t testing.TB, ns string) (int, error) {
	t.Helper()
	total := 0
	count := func(out string, err error) error {
		if err != nil {
			return err
		}
		var n int
		if _, err := fmt.Sscan(out, &n); err != nil {
			return fmt.Errorf("read overflows %q: %w", out, err)
		}
		total += n
		return nil
	}
	if err := count(inPod(t, ns, "server", overflows)); err != nil {
		return 0, err
	}
	for _, n := range nodes(t) {
		if err := count(lab(t.Context(), "", "sh", n, "bash", "-c", overflows)); err != nil {
			return 0, err
		}
	}
	return total, nil
}

func udpLoss(t testing.TB, ns, server string, seconds int) error {
	t.Helper()
	before, err := countOverflows(t, ns)
	if err != nil {
		return err
	}
	script := fmt.Sprintf("iperf3 -J -u -l 200 -b 3200k -t %d -c %s", seconds, server)
	out, err := inPod(t, ns, "client", script)
	if err != nil {
		return err
	}
	var r struct {
		End struct {
			Sum struct {
				Packets     int `json:"packets"`
				LostPackets int `json:"lost_packets"`
			} `json:"sum"`
		} `json:"end"`
	}
	if err := json.Unmarshal([]byte(out), &r); err != nil {
		return fmt.Errorf("read iperf3's report: %w\n%s", err, tail(out))
	}
	after, err := countOverflows(t, ns)
	if err != nil {
		return err
	}
	s, full := r.End.Sum, after-before
	t.Logf("UDP: %d packets, %d lost, of which %d found a full queue", s.Packets, s.LostPackets, full)
	if s.LostPackets > full || s.Packets < 1000*seconds {
		return fmt.Errorf("lost %d of %d packets, and only %d queues were full", s.LostPackets, s.Packets, full)
	}
	return nil
}

func tcpFailures(t testing.TB, ns, server string, seconds int) error {
	t.Helper()
	script := fmt.Sprintf(`ok=0; bad=0; end=$((SECONDS+%d)); while [ $SECONDS -lt $end ]; do
if curl -gsS -m 3 -o /dev/null http://%s:8080/hostname; then ok=$((ok+1)); else bad=$((bad+1)); fi; done; echo $ok $bad`, seconds, bracketed(server))
	out, err := inPod(t, ns, "client", script)
	if err != nil {
		return err
	}
	var ok, bad int
	if _, err := fmt.Sscan(out, &ok, &bad); err != nil {
		return fmt.Errorf("read counts %q: %w", out, err)
	}
	t.Logf("TCP: %d connections, %d failed", ok+bad, bad)
	if bad != 0 || ok == 0 {
		return fmt.Errorf("%d of %d connections failed", bad, ok+bad)
	}
	return nil
}

// loadPods starts a client and a server on different nodes, and gives the
// server's first address.
func loadPods(t testing.TB, ns string) string {
	t.Helper()
	all := nodes(t)
	serve := `["netexec", "--http-port=8080"]`
	iperf := fmt.Sprintf("  - {name: iperf, image: %q, imagePullPolicy: Never, command: [iperf3, -s]}\n", image)
	ips := start(t, ns, pod{Name: "client", Node: all[0]}, pod{Name: "server", Node: all[1%len(all)], Args: serve, Extra: iperf})
	return ips["server"][0]
}

// agentPID finds the daemon on a node by what its container runs.
const agentPID = `pgrep -f '^/?[^ ]*sealaned run'`

func TestDaemonKilledLosesNothing(t *testing.T) {
	ns := namespace(t, "e2e-killed")
	server := loadPods(t, ns)
	l := startLoad(t, ns, server, 60)
	// Killed again and again, so that kubelet's back-off keeps it dead for most
	// of the minute.
	for range 4 {
		for _, n := range nodes(t) {
			onNode(t, n, agentPID+" | xargs -r kill -9")
		}
		eventually(t, 45*time.Second, "daemon runs again or is backed off", func() error {
			out := kubectl(t, "-n", "sealane-system", "get", "pods", "-l", "app.kubernetes.io/component=agent", "-o", "jsonpath={.items[*].status.containerStatuses[*].state}")
			if strings.Contains(out, "terminated") {
				return fmt.Errorf("kubelet has not seen it yet: %s", out)
			}
			return nil
		})
	}
	l.wait()
	waitForAgents(t)
}

func TestUpgradeLosesNothing(t *testing.T) {
	ns := namespace(t, "e2e-upgrade")
	server := loadPods(t, ns)
	l := startLoad(t, ns, server, 40)
	kubectl(t, "-n", "sealane-system", "rollout", "restart", "daemonset/sealane-agent")
	waitForAgents(t)
	l.wait()
}

func waitForAgents(t testing.TB) {
	t.Helper()
	kubectl(t, "-n", "sealane-system", "rollout", "status", "daemonset/sealane-agent", "--timeout=300s")
	eventually(t, 5*time.Minute, "agents are ready", func() error {
		out := kubectl(t, "-n", "sealane-system", "get", "daemonset", "sealane-agent", "-o", "jsonpath={.status.numberReady}/{.status.desiredNumberScheduled}")
		if have, want, _ := strings.Cut(out, "/"); have != want {
			return fmt.Errorf("%s ready", out)
		}
		return nil
	})
}

// TestPodDeletedWhileDaemonIsDead: the DEL is queued on disk, and done later.
func TestPodDeletedWhileDaemonIsDead(t *testing.T) {
	node := nodes(t)[0]
	before := quietTraces(t, node)
	ns := namespace(t, "e2e-queued")
	start(t, ns, pod{Name: "short", Node: node, Args: "[pause]"})
	onNode(t, node, agentPID+" | xargs -r kill -STOP")
	onNode(t, node, "mv /run/sealane/cni.sock /run/sealane/cni.sock.away")
	kubectl(t, "-n", ns, "delete", "pod", "short", "--timeout=60s")
	eventually(t, time.Minute, "a queued DEL", func() error {
		if got := onNode(t, node, "ls /var/lib/sealane/cni-del | wc -l"); strings.TrimSpace(got) == "0" {
			return fmt.Errorf("none")
		}
		return nil
	})
	onNode(t, node, "rm -f /run/sealane/cni.sock.away; "+agentPID+" | xargs -r kill -9")
	eventually(t, 2*time.Minute, "node is as before", func() error {
		if after := onNode(t, node, traces); after != before {
			return fmt.Errorf("before:\n%safter:\n%s", before, after)
		}
		return nil
	})
	waitForAgents(t)
}
