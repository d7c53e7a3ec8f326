// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"
)

// TestPolicyNodePort: kube-proxy gives the node's address to whoever comes by a NodePort,
// also to a pod on that very node. The node itself is let in, these are not.
func TestPolicyNodePort(t *testing.T) {
	bringProbe(t)
	ns, all, a := namespace(t, "e2e-nodeport"), nodes(t), newAPI(t)
	apply(t, fmt.Sprintf(`apiVersion: v1
kind: Service
metadata: {name: open, namespace: %s}
spec: {type: NodePort, selector: {role: server}, ipFamilyPolicy: PreferDualStack, ports: [{port: 80, targetPort: 7000, nodePort: 30090}]}
`, ns))
	server := stations(t, ns, probe{Name: "server", Node: all[0], Labels: map[string]string{"role": "server"}})["server"]
	reach := func(from, address string) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		conn, err := dialIn(ctx, netns(t, from), "tcp", address)
		if err != nil {
			return err
		}
		return conn.Close()
	}
	others := []string{"wire", all[1]} // outside of the cluster, another node
	for _, ip := range nodeIPs(t, all[0]) {
		for _, from := range append(others, all[0]) {
			eventually(t, 20*time.Second, from+" comes by the NodePort", func() error { return reach(from, at(ip, 30090)) })
		}
	}
	a.policy(t, ns, "nobody", object{"podSelector": selects("role", "server"), "policyTypes": []string{"Ingress"}})
	for _, ip := range nodeIPs(t, all[0]) {
		for _, from := range others {
			eventually(t, 10*time.Second, from+" is not let in", func() error {
				if reach(from, at(ip, 30090)) == nil {
					return errors.New("it was")
				}
				return nil
			})
		}
		if err := reach(all[0], at(ip, 30090)); err != nil {
			t.Errorf("the node itself is not let in by its NodePort: %v", err)
		}
	}
	for _, ip := range server.ips {
		if err := reach(all[0], at(ip, 7000)); err != nil {
			t.Errorf("the node itself is not let in: %v", err)
		}
	}
	blocks := []object{{"ipBlock": object{"cidr": "0.0.0.0/0"}}, {"ipBlock": object{"cidr": "::/0"}}}
	a.policy(t, ns, "everybody", object{"podSelector": selects("role", "server"), "ingress": []object{{"from": blocks}}})
	for _, ip := range nodeIPs(t, all[0]) {
		for _, from := range others {
			eventually(t, 10*time.Second, from+" is let in as an address", func() error { return reach(from, at(ip, 30090)) })
		}
	}
}
