// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// agreeing are services that pods reach by Sealane, and nodes by kube-proxy.
const agreeing = `apiVersion: v1
kind: Service
metadata: {name: all, namespace: %[1]s}
spec: {selector: {app: server}, ipFamilyPolicy: PreferDualStack, ports: [{name: tcp, port: 80, targetPort: 7000}, {name: udp, protocol: UDP, port: 80, targetPort: 7000}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: %[1]s}
spec: {selector: {app: server}, sessionAffinity: ClientIP, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: 7000}]}
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: %[1]s}
spec: {selector: {name: s1}, internalTrafficPolicy: Local, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: 7000}]}
---
apiVersion: v1
kind: Service
metadata: {name: none, namespace: %[1]s}
spec: {selector: {app: nobody}, ipFamilyPolicy: PreferDualStack, ports: [{name: tcp, port: 80}, {name: udp, protocol: UDP, port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {name: self, namespace: %[1]s}
spec: {selector: {name: s0}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: 7000}]}
---
apiVersion: v1
kind: Service
metadata: {name: pair, namespace: %[1]s}
spec: {selector: {pair: "yes"}, ipFamilyPolicy: PreferDualStack, ports: [{protocol: UDP, port: 80, targetPort: 7000}]}
`

// agreeTest asks services from pods and from the nodes of these.
type agreeTest struct {
	*api
	ns      string
	nodes   []string
	servers map[string]*station // s0, s1, … one on each node
	clients map[string]*station // by node
	hosts   map[string]string   // network namespaces by node
}

// TestServicesAgree compares what pods reach with what nodes reach.
func TestServicesAgree(t *testing.T) {
	bringProbe(t)
	a := &agreeTest{api: newAPI(t), ns: namespace(t, "e2e-agree"), nodes: nodes(t), clients: map[string]*station{}, hosts: map[string]string{}}
	apply(t, fmt.Sprintf(agreeing, a.ns))
	var servers, clients []probe
	for i, n := range a.nodes {
		name := fmt.Sprintf("s%d", i)
		servers = append(servers, probe{Name: name, Node: n, Labels: map[string]string{"app": "server", "name": name, "pair": map[bool]string{true: "yes", false: "no"}[i < 2]}})
		clients = append(clients, probe{Name: "c-" + n, Node: n, Labels: map[string]string{"app": "client"}})
		a.hosts[n] = netns(t, n)
	}
	all := stations(t, a.ns, slices.Concat(servers, clients)...)
	a.servers = all
	for _, n := range a.nodes {
		a.clients[n] = all["c-"+n]
	}
	t.Run("every backend", a.everyBackend)
	t.Run("affinity", a.affinity)
	t.Run("local only", a.localOnly)
	t.Run("no endpoints", a.noEndpoints)
	t.Run("hairpin", a.hairpin)
	t.Run("policy sees the backend", a.policySeesBackend)
	t.Run("UDP backend goes", a.backendGoes)
}

// byPod asks many times, and counts the answers by server; "" counts failures.
func (a *agreeTest) byPod(t *testing.T, node, network, address string, times int) map[string]int {
	t.Helper()
	reached := map[string]int{}
	for _, got := range a.clients[node].try(t, 1500*time.Millisecond, slices.Repeat([]target{{network, address}}, times)...) {
		reached[got.server()]++
		if got.Error == "" && !slices.Contains(a.clients[node].ips, got.client()) {
			t.Errorf("%s sees %s as client, want one of %v", got.server(), got.client(), a.clients[node].ips)
		}
	}
	return reached
}

// byNode does the same from the node itself, by TCP.
func (a *agreeTest) byNode(t *testing.T, node, address string, times int) map[string]int {
	t.Helper()
	reached := map[string]int{}
	for range times {
		name, err := a.hostAsks(t, node, address, 800*time.Millisecond)
		if err != nil {
			name = ""
		}
		reached[name]++
		if name == "" && times > 3 {
			break // each failure takes its time
		}
	}
	return reached
}

func (a *agreeTest) hostAsks(t *testing.T, node, address string, within time.Duration) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	conn, err := dialIn(ctx, a.hosts[node], "tcp", address)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	answer := make([]byte, 200)
	if err := conn.SetReadDeadline(time.Now().Add(time.Second)); err != nil {
		return "", err
	}
	n, err := conn.Read(answer)
	name, _, _ := strings.Cut(string(answer[:n]), " ")
	return name, err
}

func (a *agreeTest) addresses(t *testing.T, service string) (all []string) {
	t.Helper()
	for _, ip := range serviceIPs(t, a.ns, service) {
		all = append(all, net.JoinHostPort(ip, "80"))
	}
	return all
}

func names(reached map[string]int) string {
	return strings.Join(slices.Sorted(maps.Keys(reached)), " ")
}

// settle waits until the node, and the pod, reach a service.
func (a *agreeTest) settle(t *testing.T, node, address, want string) {
	t.Helper()
	eventually(t, 20*time.Second, "services are known", func() error {
		pod, host := names(a.byPod(t, node, "tcp", address, 40)), names(a.byNode(t, node, address, 40))
		if pod != want || host != want {
			return fmt.Errorf("on %s pods reach %q of %s, the node %q, want %q", node, pod, address, host, want)
		}
		return nil
	})
}

func (a *agreeTest) everyBackend(t *testing.T) {
	var want []string
	for i := range a.nodes {
		want = append(want, fmt.Sprintf("s%d", i))
	}
	for _, address := range a.addresses(t, "all") {
		for _, n := range a.nodes {
			a.settle(t, n, address, strings.Join(want, " "))
			if got := names(a.byPod(t, n, "udp", address, 40)); got != strings.Join(want, " ") {
				t.Errorf("on %s pods reach %q of %s by UDP", n, got, address)
			}
		}
	}
}

func (a *agreeTest) affinity(t *testing.T) {
	for _, address := range a.addresses(t, "sticky") {
		for _, n := range a.nodes {
			a.byPod(t, n, "tcp", address, 1) // the first of many at once decides
			if pod, host := a.byPod(t, n, "tcp", address, 20), a.byNode(t, n, address, 20); len(pod) != 1 || len(host) != 1 || pod[""]+host[""] > 0 {
				t.Errorf("on %s pods reach %v of %s, the node %v, want one server each", n, pod, address, host)
			}
		}
	}
}

func (a *agreeTest) localOnly(t *testing.T) {
	for _, address := range a.addresses(t, "local") {
		for i, n := range a.nodes {
			want := ""
			if i == 1 {
				want = "s1"
			}
			a.settle(t, n, address, want)
		}
	}
}

func (a *agreeTest) noEndpoints(t *testing.T) {
	for _, address := range a.addresses(t, "none") {
		for _, n := range a.nodes {
			for i, got := range a.clients[n].try(t, 3*time.Second, target{"tcp", address}, target{"udp", address}) {
				if !got.Refused || got.MS > 1500 {
					t.Errorf("attempt %d on %s at %s: want it refused at once: %+v", i, n, address, got)
				}
			}
			// A refusal of IPv6 that the kernel gives itself is heard at the second SYN.
			if _, err := a.hostAsks(t, n, address, 3*time.Second); err == nil || !strings.Contains(err.Error(), "refused") {
				t.Errorf("the node %s at %s: %v", n, address, err)
			}
		}
	}
}

func (a *agreeTest) hairpin(t *testing.T) {
	for _, address := range a.addresses(t, "self") {
		for i, got := range a.servers["s0"].try(t, 3*time.Second, slices.Repeat([]target{{"tcp", address}}, 10)...) {
			if got.server() != "s0" {
				t.Errorf("attempt %d of s0 to reach itself at %s: %+v", i, address, got)
			}
		}
	}
}

// policySeesBackend: egress is judged by the pod that a service leads to.
func (a *agreeTest) policySeesBackend(t *testing.T) {
	a.policy(t, a.ns, "only-s0", object{
		"podSelector": selects("app", "client"), "policyTypes": []string{"Egress"},
		"egress": []object{{"to": []object{{"podSelector": selects("name", "s0")}}}},
	})
	defer func() { a.deletePolicy(t, a.ns, "only-s0") }()
	for _, n := range a.nodes {
		for _, address := range a.addresses(t, "all") {
			eventually(t, 10*time.Second, "only s0 is reached", func() error {
				if got := a.byPod(t, n, "tcp", address, 30); names(got) != " s0" {
					return fmt.Errorf("on %s %v, want s0 and failures", n, got)
				}
				return nil
			})
		}
		for _, address := range a.addresses(t, "self") {
			if got := a.byPod(t, n, "tcp", address, 10); names(got) != "s0" {
				t.Errorf("on %s %v of the service of s0", n, got)
			}
		}
	}
	eventually(t, 10*time.Second, "the node reaches all", func() error {
		if got := a.byNode(t, a.nodes[0], a.addresses(t, "all")[0], 40); len(got) != len(a.nodes) || got[""] > 0 {
			return fmt.Errorf("%v", got)
		}
		return nil
	})
}

// backendGoes: a flow of UDP packets, always from one port, goes on with another
// backend when its own is deleted.
func (a *agreeTest) backendGoes(t *testing.T) {
	e := effectTest{api: a.api, client: a.clients[a.nodes[len(a.nodes)-1]]}
	addresses := serviceIPs(t, a.ns, "pair")
	flow := func(what string, question object, answer any) {
		t.Helper()
		if err := e.client.order(what, question, answer); err != nil {
			t.Fatal(err)
		}
	}
	question := func(ip string, since time.Time) object {
		return object{"network": "udp", "address": at(ip, 80), "everyMS": 10, "since": since.UnixNano()}
	}
	for _, ip := range addresses { // a flow of each family; where they go is not said, so both backends go in turn
		flow("flow", question(ip, time.Time{}), nil)
	}
	goesOn := func(since time.Time) {
		t.Helper()
		for _, ip := range addresses {
			eventually(t, 10*time.Second, "the flow to "+ip+" goes on", func() error {
				var got course
				flow("course", question(ip, since), &got)
				if len(got.Answered) == 0 || slices.Max(got.Answered) == 0 {
					return fmt.Errorf("nothing of %d packets was answered", len(got.Sent))
				}
				i := slices.IndexFunc(got.Answered, func(at int64) bool { return at != 0 })
				t.Logf("%s: first answer after %s", ip, time.Unix(0, got.Answered[i]).Sub(since))
				return nil
			})
		}
	}
	goesOn(time.Now())
	for i, s := range []string{"s0", "s1"} {
		_, done := a.do(t, "DELETE", "/api/v1/namespaces/"+a.ns+"/pods/"+s+"?gracePeriodSeconds=0", nil)
		goesOn(done)
		if i == 0 { // it comes back, so that the other can go
			a.servers[s] = stations(t, a.ns, a.servers[s].probe)[s]
			goesOn(time.Now())
		}
	}
}
