// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"
)

// services is one Service of each kind before the same three servers.
const services = `apiVersion: v1
kind: Service
metadata: {name: cluster, namespace: %[1]s}
spec: {selector: {app: server}, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 80, targetPort: 8080}, {name: udp, protocol: UDP, port: 81, targetPort: 8081}]}
---
apiVersion: v1
kind: Service
metadata: {name: headless, namespace: %[1]s}
spec: {selector: {app: server}, clusterIP: None, ports: [{name: http, port: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: sticky, namespace: %[1]s}
spec: {selector: {app: server}, sessionAffinity: ClientIP, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: nodeport, namespace: %[1]s}
spec: {type: NodePort, selector: {app: server}, ipFamilyPolicy: PreferDualStack, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30080}]}
---
apiVersion: v1
kind: Service
metadata: {name: local, namespace: %[1]s}
spec: {type: NodePort, externalTrafficPolicy: Local, selector: {app: server}, ports: [{name: http, port: 80, targetPort: 8080, nodePort: 30081}]}
---
apiVersion: v1
kind: Service
metadata: {name: self, namespace: %[1]s}
spec: {selector: {name: s0}, ports: [{name: http, port: 80, targetPort: 8080}]}
`

func serviceIPs(t testing.TB, ns, name string) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "-n", ns, "get", "service", name, "-o", "jsonpath={.spec.clusterIPs[*]}"))
}

func nodeIP(t testing.TB, node string) string {
	t.Helper()
	return nodeIPs(t, node)[0]
}

// nodeIPs are the node's own addresses, of every family.
func nodeIPs(t testing.TB, node string) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "get", "node", node, "-o", `jsonpath={.status.addresses[?(@.type=="InternalIP")].address}`))
}

func TestServices(t *testing.T) {
	ns := namespace(t, "e2e-services")
	all := nodes(t)
	var pods []pod
	for i, n := range all {
		pods = append(pods, pod{
			Name: fmt.Sprintf("s%d", i), Node: n, Labels: fmt.Sprintf("{app: server, name: s%d}", i),
		})
	}
	pods = append(pods, pod{Name: "client", Node: all[0]}, pod{
		Name: "hostport", Node: all[len(all)-1], Ports: "[{containerPort: 8080, hostPort: 18080}]",
	})
	apply(t, fmt.Sprintf(services, ns))
	ips := start(t, ns, pods...)

	// Every source asks every service; the answer names the server.
	sources := map[string]func(script string) (string, error){
		"pod":  func(s string) (string, error) { return inPod(t, ns, "client", s) },
		"node": func(s string) (string, error) { return lab(t.Context(), "", "sh", all[1%len(all)], "bash", "-c", s) },
	}
	var targets []string
	for _, s := range []string{"cluster", "sticky", "self"} {
		for _, ip := range serviceIPs(t, ns, s) {
			targets = append(targets, net.JoinHostPort(ip, "80"))
		}
	}
	for _, n := range all {
		targets = append(targets, net.JoinHostPort(nodeIP(t, n), "30080"))
	}
	targets = append(targets, net.JoinHostPort(nodeIP(t, all[len(all)-1]), "18080"))
	for _, n := range all {
		targets = append(targets, net.JoinHostPort(nodeIP(t, n), "30081"))
	}
	for name, run := range sources {
		for _, target := range targets {
			t.Run(name+"/"+target, func(t *testing.T) {
				eventually(t, 20*time.Second, "an answer", func() error {
					out, err := run("set -e; for i in 1 2 3 4 5 6; do curl -gsS -m 3 http://" + target + "/hostname; echo; done")
					if err == nil && strings.TrimSpace(out) == "" {
						return fmt.Errorf("empty answer")
					}
					return err
				})
			})
		}
	}
	t.Run("every backend is reached", func(t *testing.T) {
		out, err := inPod(t, ns, "client", "for i in $(seq 60); do curl -gsS -m 3 http://"+bracketed(serviceIPs(t, ns, "cluster")[0])+"/hostname; echo; done | sort -u")
		if got := strings.Fields(out); err != nil || len(got) != len(all) {
			t.Errorf("60 requests reached %v, want %d servers: %v", got, len(all), err)
		}
	})
	t.Run("affinity holds", func(t *testing.T) {
		out, err := inPod(t, ns, "client", "for i in $(seq 20); do curl -gsS -m 3 http://"+bracketed(serviceIPs(t, ns, "sticky")[0])+"/hostname; echo; done | sort -u")
		if got := strings.Fields(out); err != nil || len(got) != 1 {
			t.Errorf("20 requests reached %v, want one server: %v", got, err)
		}
	})
	t.Run("UDP", func(t *testing.T) {
		for _, ip := range serviceIPs(t, ns, "cluster") {
			out, err := inPod(t, ns, "client", "for i in 1 2 3 4 5 6; do echo hostname | nc -u -w1 -W1 "+ip+" 81; echo; done")
			if err != nil || len(strings.Fields(out)) == 0 {
				t.Errorf("UDP service %s: %q, %v", ip, out, err)
			}
		}
	})
	t.Run("hairpin", func(t *testing.T) {
		out, err := inPod(t, ns, "s0", "curl -gsS -m 5 http://"+bracketed(serviceIPs(t, ns, "self")[0])+"/hostname")
		if err != nil || strings.TrimSpace(out) != "s0" {
			t.Errorf("pod s0 asking itself through its service: %q, %v", out, err)
		}
	})
	t.Run("headless names every pod", func(t *testing.T) {
		eventually(t, 30*time.Second, "DNS", func() error {
			out, err := inPod(t, ns, "client", "dig +short +search headless A headless AAAA")
			if err != nil {
				return err
			}
			for i := range all {
				if !strings.Contains(out, ips[fmt.Sprintf("s%d", i)][0]) {
					return fmt.Errorf("answer %q lacks s%d", out, i)
				}
			}
			return nil
		})
	})
	t.Run("local keeps the source", func(t *testing.T) {
		target, own := nodeIP(t, all[0]), "172.30.0.254"
		if strings.Contains(target, ":") {
			own = "fd00:30::254"
		}
		out, err := outside(t, "curl", "-gsS", "-m", "5", "http://"+net.JoinHostPort(target, "30081")+"/clientip")
		if client, _, _ := net.SplitHostPort(out); err != nil || client != own {
			t.Errorf("server saw %q, want the client's own address %s: %v", out, own, err)
		}
	})
}
