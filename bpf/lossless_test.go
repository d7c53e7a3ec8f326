// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"testing"
	"time"

	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
)

// generous changes one thing of a cluster at a time: a label, or a policy. All of
// its policies allow UDP from the client to the servers, each in a way of its own.
type generous struct {
	*compile.Compiler
	*rand.Rand
	client, local, remote policy.Pod
}

const space = "shop"

func newGenerous(client, local, remote []netip.Addr) *generous {
	g := &generous{
		Compiler: compile.NewCompiler(), Rand: rand.New(rand.NewPCG(uint64(os.Getpid()), 4)),
		client: policy.Pod{Name: "client", Addresses: client, Local: true},
		local:  policy.Pod{Name: "local", Addresses: local, Local: true},
		remote: policy.Pod{Name: "remote", Addresses: remote},
	}
	for _, p := range []*policy.Pod{&g.client, &g.local, &g.remote} {
		p.Namespace, p.UID = space, p.Name
		g.SetPod(g.labelled(*p))
	}
	g.SetNamespace(space, nil)
	return g
}

func (g *generous) labelled(p policy.Pod) policy.Pod {
	p.Labels = map[string]string{"app": p.Name, "version": g.word()}
	return p
}

func (g *generous) word() string { return string(rune('a' + g.IntN(5))) }

// change makes one change, and returns the steps to it.
func (g *generous) change(t *testing.T) []policy.Changes {
	t.Helper()
	switch g.IntN(6) {
	case 0:
		g.SetNamespace(space, map[string]string{"version": g.word()})
	case 1:
		g.SetPod(g.labelled([]policy.Pod{g.client, g.local, g.remote}[g.IntN(3)]))
	case 2:
		g.DeletePolicy(space, g.word())
	default:
		if err := g.SetPolicy(g.policy()); err != nil {
			t.Fatal(err)
		}
	}
	return g.Changes()
}

func (g *generous) policy() *networkingv1.NetworkPolicy {
	np := &networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: space, Name: g.word()}}
	switch g.IntN(3) {
	case 0:
		np.Spec.PodSelector.MatchLabels = map[string]string{"app": "client"}
		np.Spec.Egress = []networkingv1.NetworkPolicyEgressRule{{To: g.peers(g.local, g.remote)}}
		np.Spec.PolicyTypes = []networkingv1.PolicyType{networkingv1.PolicyTypeEgress}
	default:
		np.Spec.PodSelector.MatchLabels = map[string]string{"app": "local"}
		np.Spec.Ingress = []networkingv1.NetworkPolicyIngressRule{{From: g.peers(g.client)}}
	}
	return np
}

// peers allows the pods, and perhaps others.
func (g *generous) peers(pods ...policy.Pod) (peers []networkingv1.NetworkPolicyPeer) {
	other := &metav1.LabelSelector{MatchLabels: map[string]string{"version": g.word()}}
	if g.IntN(2) == 0 {
		peers = append(peers, networkingv1.NetworkPolicyPeer{NamespaceSelector: other})
	}
	way := g.IntN(3)
	for _, pod := range pods {
		app := &metav1.LabelSelector{MatchLabels: map[string]string{"app": pod.Name}}
		switch way {
		case 0:
			peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: app})
		case 1:
			peers = append(peers, networkingv1.NetworkPolicyPeer{PodSelector: app, NamespaceSelector: &metav1.LabelSelector{}})
		default:
			for _, a := range pod.Addresses {
				bits := a.BitLen() - g.IntN(24)
				peers = append(peers, networkingv1.NetworkPolicyPeer{IPBlock: &networkingv1.IPBlock{CIDR: netip.PrefixFrom(a, bits).Masked().String()}})
			}
		}
	}
	return peers
}

// TestPrivilegedChangesLoseNothing changes labels and policies hundreds of times,
// with a daemon that starts anew in between, under streams that all of them allow:
// two flows, and datagrams each of which begins a flow of its own.
func TestPrivilegedChangesLoseNothing(t *testing.T) {
	n := newNode(t, 1)
	far, a, b := n.addLane(2, false), n.pod(2), n.pod(3)
	remote := families[1].podAddr(2, 9)
	local, out := dial(t, a.NS, "udp", port(b.addrs[0], 7)), dial(t, a.NS, "udp", port(remote, 7))
	for _, c := range []net.Conn{local, out} {
		if err := c.SetDeadline(time.Time{}); err != nil {
			t.Fatal(err)
		}
	}
	outOfLane := func() (uint32, error) {
		_ = far.SetReadDeadline(time.Now().Add(patience))
		buf := make([]byte, 2000)
		for {
			size, err := far.Read(buf)
			if err != nil {
				return 0, err
			}
			if d, err := parseDatagram(buf[:size]); err == nil && d.To.Port() == 7 {
				return binary.BigEndian.Uint32([]byte(d.Payload)), nil
			}
		}
	}
	g := newGenerous(a.addrs, b.addrs, []netip.Addr{remote})
	g.Changes()
	guard(t, n, g.Tables())
	devices := map[string]func(*Datapath, Device) error{
		a.host.Name: (*Datapath).AttachPod, b.host.Name: (*Datapath).AttachPod,
		laneName: func(d *Datapath, dev Device) error { return d.AttachTunnel(dev, L3) },
	}
	rate, times := streaming()
	changes := func() {
		for i := range 30 * times {
			if i%30 == 15 {
				n.again(devices)
				guard(t, n, g.Tables())
			}
			for _, step := range g.change(t) {
				if err := n.d.ApplyPolicy(step); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	write := func(c net.Conn) func([]byte) error { return func(b []byte) error { _, err := c.Write(b); return err } }
	anew := func(number []byte) error {
		return a.Handle().Do(func() error {
			c, err := net.DialUDP("udp", nil, net.UDPAddrFromAddrPort(port(b.addrs[1], 8)))
			if err != nil {
				return err
			}
			_, err = c.Write(number)
			return errors.Join(err, c.Close())
		})
	}
	var sent, arrived [3]int
	drops := counted(t, n.d, func() {
		sent[0], arrived[0] = stream(write(local), b.receiver(port(b.addrs[0], 7)), func() {
			sent[1], arrived[1] = stream(write(out), outOfLane, func() {
				sent[2], arrived[2] = stream(anew, b.receiver(port(b.addrs[1], 8)), changes)
			})
		})
	})
	for i, name := range []string{"pod to pod", "pod to lane", "new flows"} {
		if sent[i] < rate/10 || sent[i] != arrived[i] {
			t.Errorf("%s: %d of %d datagrams arrived", name, arrived[i], sent[i])
		}
	}
	t.Logf("%v datagrams sent in %d changes", sent, 30*times)
	wantDrops(t, drops)
}
