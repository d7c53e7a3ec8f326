// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"fmt"
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/policy"
)

// reaches sends a byte to an echo server, and tells whether it comes back soon.
func reaches(t *testing.T, ns *nettest.NS, network string, to netip.AddrPort) bool {
	t.Helper()
	const soon = 500 * time.Millisecond
	var c net.Conn
	in(t, ns, func() error {
		c, _ = net.DialTimeout(network, to.String(), soon)
		return nil
	})
	if c == nil {
		return false
	}
	defer c.Close()
	if err := c.SetDeadline(time.Now().Add(soon)); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte{1}); err != nil {
		return false
	}
	_, err := c.Read(make([]byte, 1))
	return err == nil
}

// TestPrivilegedPolicyOfNodePorts: who comes by a NodePort has the node's address when
// the pod's policies are asked, and is not the node for that.
func TestPrivilegedPolicyOfNodePorts(t *testing.T) {
	s := newServices(t)
	// As overlay/hostnet has it, for the pods' devices.
	s.a.nft(fmt.Sprintf(`table inet ours { chain forward { type filter hook forward priority 0;
		ct direction original ct state != related meta mark set meta mark | %#x
	}; }`, uint32(forwardedMark)))
	outside := s.a.uplink("eth0")
	each(t, func(t *testing.T, i int, f family) {
		server := s.local.addrs[i]
		nodePort, direct := port(f.nodeAddr(1), 30000+uint16(atLocal)), port(server, 7)
		guard(t, s.a, policy.Tables{Endpoints: map[netip.Addr]policy.EndpointPolicy{server: {Ingress: policy.Closed, DryRunIngress: policy.Closed}}})
		for _, network := range []string{"tcp", "udp"} {
			wantDrops(t, counted(t, s.a.d, func() {
				if reaches(t, outside, network, nodePort) {
					t.Errorf("%s by a NodePort reaches a pod that lets nobody in", network)
				}
			}), ReasonPolicyIngress)
		}
		echoTCP(t, s.a.NS, direct, large)   // the node itself
		echoTCP(t, s.a.NS, nodePort, large) // also by the NodePort
		// The pod's own requests by a NodePort, whose answers come from the node's address.
		remote := port(f.nodeAddr(1), 30000+uint16(atRemote))
		wantDrops(t, counted(t, s.a.d, func() {
			echoTCP(t, s.local.NS, remote, large)
			echoUDP(t, s.local.NS, remote, 1, mtu)
		}))
		guard(t, s.a, policy.Tables{})
		echoTCP(t, outside, nodePort, large)
	})
}
