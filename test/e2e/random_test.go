// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/oracle"
	"github.com/sealane/sealane/policy/policytest"
)

// randomTest is a few pods whose labels, namespaces and policies change at
// random.
type randomTest struct {
	*api
	pods       map[string]*station
	namespaces []string // by their number in policytest
	cluster    oracle.Cluster
	applied    map[string]bool // policies by path
	nodes      map[string][]netip.Addr
	hosts      map[string]string // network namespaces by node
}

// randomPorts are those that policytest's policies speak of, of TCP and UDP each.
func randomPorts() []int { return []int{53, 80, 81, 8080} }

// TestPolicyRandom compares real connections between all pods, and from nodes to
// them, with what policies say by plain reading.
func TestPolicyRandom(t *testing.T) {
	bringProbe(t)
	seed := uint64(setting("SEALANE_E2E_SEED", int(rand.Uint32())))
	t.Logf("SEALANE_E2E_SEED=%d", seed)
	r := newRandomTest(t, rand.New(rand.NewPCG(seed, 0)))
	for i := range setting("SEALANE_E2E_WORLDS", 15) {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			w := policytest.New(rand.NewPCG(seed, uint64(i)+1))
			w.WellFormed = true
			for range 30 + w.IntN(60) {
				w.Step()
			}
			r.become(t, w)
			var count [2]int
			eventually(t, 15*time.Second, "connections are as policies say", func() error {
				var err error
				count, err = r.compare(t)
				return err
			})
			t.Logf("%d policies; %d connections allowed, %d denied", len(w.Policies), count[1], count[0])
		})
	}
}

func newRandomTest(t *testing.T, random *rand.Rand) *randomTest {
	t.Helper()
	r := &randomTest{api: newAPI(t), pods: map[string]*station{}, applied: map[string]bool{}, nodes: map[string][]netip.Addr{}, hosts: map[string]string{}}
	all := nodes(t)
	for _, n := range all {
		r.hosts[n] = netns(t, n)
		for _, ip := range nodeIPs(t, n) {
			r.nodes[n] = append(r.nodes[n], netip.MustParseAddr(ip))
		}
	}
	for i := range 4 {
		r.namespaces = append(r.namespaces, namespace(t, fmt.Sprintf("e2e-random-%d", i)))
	}
	args := []string{"serve"}
	for _, p := range randomPorts() {
		args = append(args, fmt.Sprint(p))
	}
	for i := range 6 { // two in a namespace, but for the last ones
		ns := r.namespaces[i%len(r.namespaces)]
		p := probe{Name: fmt.Sprintf("p%d", i), Node: all[i%len(all)], Args: args, Ports: []containerPort{
			{"web", "TCP", policytest.Pick(&policytest.World{Rand: random}, 80, 81, 8080)},
			{"dns", "UDP", policytest.Pick(&policytest.World{Rand: random}, 53, 80)},
		}}
		r.pods[p.Name] = stations(t, ns, p)[p.Name]
	}
	return r
}

// become makes the cluster what the world is; only the pods' addresses, nodes and
// ports stay.
func (r *randomTest) become(t *testing.T, w *policytest.World) {
	t.Helper()
	r.cluster = oracle.Cluster{Namespaces: map[string]map[string]string{}, Nodes: r.nodes}
	for i, ns := range r.namespaces {
		labels := map[string]string{"kubernetes.io/metadata.name": ns}
		for _, key := range []string{"team", "env"} {
			if v, ok := w.Namespaces[fmt.Sprintf("n%d", i)][key]; ok {
				labels[key] = v
			}
		}
		r.cluster.Namespaces[ns] = labels
		r.label(t, ns, "", only(labels, "team", "env"))
	}
	for _, name := range slices.Sorted(maps.Keys(r.pods)) { // in order, so that equal seeds make equal worlds
		s, labels := r.pods[name], map[string]string{}
		for _, key := range []string{"app", "tier"} {
			if v := policytest.Pick(w, "x", "y", ""); v != "" {
				labels[key] = v
			}
		}
		r.label(t, s.ns, s.Name, only(labels, "app", "tier"))
		r.cluster.Pods = append(r.cluster.Pods, r.pod(s, labels))
	}
	for path := range r.applied {
		r.do(t, http.MethodDelete, path, nil)
		delete(r.applied, path)
	}
	for _, np := range w.Policies {
		np = r.local(t, np)
		r.cluster.Policies = append(r.cluster.Policies, np)
		r.do(t, http.MethodPost, policies(np.Namespace), np)
		r.applied[policies(np.Namespace)+"/"+np.Name] = true
	}
}

// only is a change that leaves no other of some labels.
func only(labels map[string]string, keys ...string) object {
	change := object{}
	for _, k := range keys {
		change[k] = nil
		if v, ok := labels[k]; ok {
			change[k] = v
		}
	}
	return change
}

func (r *randomTest) pod(s *station, labels map[string]string) policy.Pod {
	p := policy.Pod{Namespace: s.ns, Name: s.Name, UID: s.Name, Labels: labels, Node: s.Node}
	for _, ip := range s.ips {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(ip))
	}
	for _, c := range s.Ports {
		protocol := ipproto.TCP
		if c.Protocol == "UDP" {
			protocol = ipproto.UDP
		}
		p.Ports = append(p.Ports, policy.NamedPort{Name: c.Name, Protocol: protocol, Port: uint16(c.Port)})
	}
	return p
}

// local gives a policy of policytest the namespaces and the addresses of the lab.
// What lies within what stays so. The API server wants no host bits.
func (r *randomTest) local(t *testing.T, np *networkingv1.NetworkPolicy) *networkingv1.NetworkPolicy {
	t.Helper()
	text, err := json.Marshal(np)
	if err != nil {
		t.Fatal(err)
	}
	moved := strings.NewReplacer(
		`"10.0.0.0/8"`, `"10.0.0.0/8"`, `"10.0.1.7/24"`, `"10.244.1.0/24"`, `"10.0.`, `"10.244.`, `"fd00::/124"`, `"fd00:244::/62"`, `"fd00::4/126"`, `"fd00:244:0:1::/64"`,
		`"fd00::5/128"`, `"fd00:244:0:1::/120"`, `"192.168.0.0/16"`, `"172.30.0.0/16"`, `"192.168.1.`, `"172.30.0.`, `"2001:db8::/32"`, `"fd00:30::/32"`,
		`"2001:db8:1::/48"`, `"fd00:30::/48"`,
	).Replace(string(text))
	local := &networkingv1.NetworkPolicy{}
	if err := json.Unmarshal([]byte(moved), local); err != nil {
		t.Fatal(err)
	}
	var i int
	if _, err := fmt.Sscanf(np.Namespace, "n%d", &i); err != nil {
		t.Fatal(err)
	}
	local.Namespace, local.APIVersion, local.Kind = r.namespaces[i], "networking.k8s.io/v1", "NetworkPolicy"
	return local
}

// compare tries everything once. It gives how many connections were denied, and
// allowed, and an error that names some of those that were not as they should be.
func (r *randomTest) compare(t *testing.T) (count [2]int, err error) {
	t.Helper()
	var mu sync.Mutex // guards count and wrong
	var wrong []string
	judge := func(x policy.Traffic, got bool) {
		d := oracle.Decide(r.cluster, x)
		mu.Lock()
		defer mu.Unlock()
		if d.Allowed() != got {
			wrong = append(wrong, fmt.Sprintf("passed: %v, but %s", got, d))
		}
		if got {
			count[1]++
		} else {
			count[0]++
		}
	}
	var wg sync.WaitGroup
	for _, s := range r.pods {
		wg.Go(func() { r.fromPod(t, s, judge) })
	}
	for n := range r.hosts {
		for _, s := range r.pods {
			wg.Go(func() { r.fromNode(t, n, s, judge) })
		}
	}
	wg.Wait()
	if len(wrong) > 0 {
		err = fmt.Errorf("%d connections differ:\n%s", len(wrong), strings.Join(wrong[:min(len(wrong), 5)], "\n"))
	}
	return count, err
}

// patience is how long a connection that is denied is waited for.
const patience = 700 * time.Millisecond

func (r *randomTest) fromPod(t *testing.T, s *station, judge func(policy.Traffic, bool)) {
	var targets []target
	var traffic []policy.Traffic
	for _, to := range r.pods {
		for i, ip := range to.ips {
			for _, port := range randomPorts() {
				x := policy.Traffic{From: netip.MustParseAddr(s.ips[i]), To: netip.MustParseAddr(ip), Port: uint16(port), Protocol: ipproto.TCP}
				targets, traffic = append(targets, target{"tcp", at(ip, port)}), append(traffic, x)
				x.Protocol = ipproto.UDP
				targets, traffic = append(targets, target{"udp", at(ip, port)}), append(traffic, x)
			}
		}
	}
	for i, got := range s.try(t, patience, targets...) {
		judge(traffic[i], got.Error == "")
	}
}

// fromNode goes by TCP: a node is an address like any other to pods of others,
// and always allowed to its own.
func (r *randomTest) fromNode(t *testing.T, node string, to *station, judge func(policy.Traffic, bool)) {
	var wg sync.WaitGroup
	defer wg.Wait()
	for i, ip := range to.ips {
		for _, port := range randomPorts() {
			x := policy.Traffic{From: r.nodes[node][i], To: netip.MustParseAddr(ip), Port: uint16(port), Protocol: ipproto.TCP}
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				conn, err := dialIn(ctx, r.hosts[node], "tcp", at(ip, port))
				judge(x, err == nil)
				if err != nil {
					return
				}
				defer conn.Close()
				if host, _, _ := net.SplitHostPort(conn.LocalAddr().String()); host != x.From.String() {
					t.Errorf("node %s reaches %s from %s", node, ip, host)
				}
			})
		}
	}
}
