// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/internal/nettest"
	"github.com/sealane/sealane/internal/nl"
)

func spec(pod *nettest.NS, addresses ...string) Spec {
	o := ipam.Owner{ContainerID: pod.Name, IfName: "eth0"}
	s := Spec{Owner: o, Netns: pod.Path, IfName: o.IfName, HostIfName: HostName(o), MTU: 1420}
	for _, a := range addresses {
		s.Addresses = append(s.Addresses, netip.MustParseAddr(a))
	}
	return s
}

// node creates a namespace that forwards, with one address per family on lo.
func node(t testing.TB) *nettest.NS {
	t.Helper()
	host := nettest.NewNS(t)
	host.Run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")
	host.Run("ip", "addr", "add", "192.0.2.1/32", "dev", "lo")
	host.Run("ip", "addr", "add", "2001:db8::1/128", "dev", "lo")
	return host
}

// families returns the addresses of a pod in each kind of cluster.
func families() map[string][]string {
	return map[string][]string{"IPv4": {"10.9.0.2"}, "IPv6": {"fd00:9::2"}, "dual": {"10.9.0.2", "fd00:9::2"}}
}

// wantReachable fails unless pod and node reach each other through every address.
func wantReachable(t *testing.T, host, pod *nettest.NS, s Spec) {
	t.Helper()
	for _, a := range s.Addresses {
		node := "192.0.2.1"
		if a.Is6() {
			node = "2001:db8::1"
		}
		pod.Run("ping", "-c1", "-W3", node)
		host.Run("ping", "-c1", "-W3", a.String())
	}
}

// wantNothing fails if the host has a trace of any pod.
func wantNothing(t *testing.T, host *nettest.NS) {
	t.Helper()
	h := host.Handle()
	links, err := h.Links()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		if strings.HasPrefix(l.Name, HostPrefix) {
			t.Errorf("device left: %+v", l)
		}
	}
	if routes, err := h.Routes(nl.RouteFilter{Protocol: RouteProtocol}); err != nil || len(routes) != 0 {
		t.Errorf("routes left: %v, %v", routes, err)
	}
	if out := host.Run("ip", "neigh", "show", "nud", "permanent"); out != "" {
		t.Errorf("neighbours left: %s", out)
	}
}

func TestPrivilegedConnect(t *testing.T) {
	nettest.Privileged(t)
	for name, addresses := range families() {
		t.Run(name, func(t *testing.T) {
			host, pod := node(t), nettest.NewNS(t)
			s := spec(pod, addresses...)
			first, err := Connect(t.Context(), host.Handle(), s)
			if err != nil {
				t.Fatal(err)
			}
			if err := Check(host.Handle(), s); err != nil {
				t.Error(err)
			}
			wantReachable(t, host, pod, s)
			again, err := Connect(t.Context(), host.Handle(), s)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(first, again); diff != "" {
				t.Errorf("a retry made something else (-first +again):\n%s", diff)
			}
			for range 2 { // a missing device is no error
				if err := NewRemover(host.Handle()).Disconnect(s.HostIfName); err != nil {
					t.Fatal(err)
				}
			}
			wantNothing(t, host)
		})
	}
}

// TestPrivilegedGuardComesFirst: when OnCreate runs, nothing can reach the pod. If it
// fails, nothing is left; a retry calls it again.
func TestPrivilegedGuardComesFirst(t *testing.T) {
	nettest.Privileged(t)
	host, pod := node(t), nettest.NewNS(t)
	s, asked, refuse := spec(pod, "10.9.0.2"), []int{}, errors.New("no guard")
	s.OnCreate = func(index int) error {
		link, err := host.Handle().LinkByIndex(index)
		if err != nil || link.Name != s.HostIfName {
			t.Errorf("device %d is %+v, %v", index, link, err)
		}
		if err := Check(host.Handle(), s); len(asked) < 2 && (link.Up || err == nil) {
			t.Errorf("the device was up before it was guarded: %+v", link)
		}
		asked = append(asked, index)
		return refuse
	}
	if _, err := Connect(t.Context(), host.Handle(), s); !errors.Is(err, refuse) {
		t.Fatalf("got %v, want the guard's error", err)
	}
	wantNothing(t, host)
	refuse = nil
	for range 2 {
		if _, err := Connect(t.Context(), host.Handle(), s); err != nil {
			t.Fatal(err)
		}
	}
	if len(asked) != 3 || asked[1] != asked[2] {
		t.Errorf("asked to guard devices %v, want a failed one, and another one twice", asked)
	}
}

// TestPrivilegedFirstPacketIsNotLost fails, though not every time, if Connect returns
// before the kernel's workers are done.
func TestPrivilegedFirstPacketIsNotLost(t *testing.T) {
	nettest.Privileged(t)
	for i := range 20 {
		host, pod := node(t), nettest.NewNS(t)
		if _, err := Connect(t.Context(), host.Handle(), spec(pod, "10.9.0.2", "fd00:9::2")); err != nil {
			t.Fatal(err)
		}
		pod.Run("ping", "-c1", "-W2", []string{"192.0.2.1", "2001:db8::1"}[i%2])
	}
}

// TestPrivilegedPodsReachEachOther needs more than a single pod does: both ends must
// forward, and the neighbours must be right.
func TestPrivilegedPodsReachEachOther(t *testing.T) {
	nettest.Privileged(t)
	host, a, b := node(t), nettest.NewNS(t), nettest.NewNS(t)
	// New devices do not forward unless they are told to.
	host.Run("sysctl", "-qw", "net.ipv4.conf.default.forwarding=0", "net.ipv6.conf.default.forwarding=0")
	for pod, addresses := range map[*nettest.NS][]string{a: {"10.9.0.2", "fd00:9::2"}, b: {"10.9.0.3", "fd00:9::3"}} {
		// Some runtimes switch IPv6 off in every sandbox.
		pod.Run("sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1", "net.ipv6.conf.default.disable_ipv6=1")
		if _, err := Connect(t.Context(), host.Handle(), spec(pod, addresses...)); err != nil {
			t.Fatal(err)
		}
	}
	for _, to := range []string{"10.9.0.3", "fd00:9::3"} {
		a.Run("ping", "-c1", "-W3", to)
	}
}

func TestPrivilegedDevicesAreWhatTheyShouldBe(t *testing.T) {
	nettest.Privileged(t)
	for name, addresses := range families() {
		t.Run(name, func(t *testing.T) {
			host, pod := node(t), nettest.NewNS(t)
			s := spec(pod, addresses...)
			s.Owner.ContainerID = strings.Repeat("c", 300) // longer than the longest alias
			made, err := Connect(t.Context(), host.Handle(), s)
			if err != nil {
				t.Fatal(err)
			}
			link, err := host.Handle().LinkByIndex(made.HostIndex)
			if err != nil {
				t.Fatal(err)
			}
			link.PeerIndex = 0
			want := nl.Link{
				Index: made.HostIndex, Name: s.HostIfName, Kind: "veth", Alias: strings.Repeat("c", 255),
				MTU: 1420, Up: true, MAC: HostMAC(), Group: DeviceGroup,
			}
			if diff := cmp.Diff(want, link); diff != "" {
				t.Errorf("host's end (-want +got):\n%s", diff)
			}
			if out := host.Run("ip", "-6", "addr", "show", "dev", s.HostIfName); strings.Contains(out, "fe80") {
				t.Errorf("the host's end has a link-local address: %s", out)
			}
			inside := pod.Run("ip", "-6", "addr", "show", "dev", "eth0")
			if strings.Contains(inside, "fd00") && strings.Contains(strings.SplitN(inside, "fd00", 2)[1][:60], "tentative") {
				t.Errorf("the pod's address is tentative: %s", inside)
			}
			if !s.has6() && inside != "" {
				t.Errorf("a pod without IPv6 address has IPv6: %s", inside)
			}
			pod.Run("ping", "-c1", "-W3", "127.0.0.1") // loopback is up
		})
	}
}

func TestPrivilegedConnectReplacesWhatIsHalfMade(t *testing.T) {
	nettest.Privileged(t)
	const mac = "02:00:00:00:00:01"
	for name, tc := range map[string]struct {
		spoil func(host, pod *nettest.NS, s Spec)
		says  string
	}{
		"pod's end down":  {func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "link", "set", s.IfName, "down") }, "eth0 is down"},
		"host's end down": {func(host, _ *nettest.NS, s Spec) { host.Run("ip", "link", "set", s.HostIfName, "down") }, " is down"},
		"no address":      {func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "addr", "flush", "dev", s.IfName) }, "want 10.9.0.2/32"},
		"one address of two": {
			func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "addr", "del", "fd00:9::2/128", "dev", s.IfName) },
			"want fd00:9::2/128",
		},
		"no route":         {func(_, pod *nettest.NS, _ Spec) { pod.Run("ip", "route", "del", "default") }, "lacks the route 0.0.0.0/0"},
		"no IPv6 route":    {func(_, pod *nettest.NS, _ Spec) { pod.Run("ip", "-6", "route", "del", "default") }, "lacks the route ::/0"},
		"no route outside": {func(host, _ *nettest.NS, _ Spec) { host.Run("ip", "route", "del", "10.9.0.2/32") }, "lacks the route 10.9.0.2/32"},
		"no neighbour": {
			func(_, pod *nettest.NS, s Spec) {
				pod.Run("ip", "neigh", "flush", "nud", "permanent", "dev", s.IfName)
			},
			"lacks the permanent neighbour 169.254.1.1",
		},
		"neighbour ages": {
			func(host, _ *nettest.NS, s Spec) {
				host.Run("ip", "neigh", "replace", "fd00:9::2", "lladdr", PodMAC(s.Addresses).String(), "dev", s.HostIfName, "nud", "reachable")
			},
			"lacks the permanent neighbour fd00:9::2",
		},
		"other neighbour": {
			func(host, _ *nettest.NS, s Spec) {
				host.Run("ip", "neigh", "replace", "10.9.0.2", "lladdr", mac, "dev", s.HostIfName, "nud", "permanent")
			},
			"lacks the permanent neighbour 10.9.0.2",
		},
		"other MTU": {func(_, pod *nettest.NS, s Spec) { pod.Run("ip", "link", "set", s.IfName, "mtu", "1300") }, "eth0 has MTU 1300, want 1420"},
		"other hardware address": {
			func(host, _ *nettest.NS, s Spec) { host.Run("ip", "link", "set", s.HostIfName, "address", mac) },
			"has hardware address " + mac,
		},
		"somebody's device": {
			func(host, _ *nettest.NS, s Spec) {
				host.Run("ip", "link", "del", s.HostIfName)
				host.Run("ip", "link", "add", s.HostIfName, "type", "bridge")
			},
			"pod device eth0: ",
		},
		"somebody's device inside": {
			func(host, pod *nettest.NS, s Spec) {
				host.Run("ip", "link", "del", s.HostIfName)
				pod.Run("ip", "link", "add", s.IfName, "type", "bridge")
			},
			"host device slp",
		},
		"half deleted": {
			func(host, _ *nettest.NS, s Spec) {
				host.Run("ip", "link", "set", s.HostIfName, "group", fmt.Sprint(DoomedGroup))
			},
			"is in device group 0x5ea2, want 0x5ea1",
		},
		"two halves": {
			func(host, pod *nettest.NS, s Spec) {
				pod.Run("ip", "link", "set", s.IfName, "down")
				pod.Run("ip", "link", "set", s.IfName, "name", "old")
				pod.Run("ip", "link", "add", s.IfName, "type", "veth", "peer", "name", "other")
			},
			"is not the other end of",
		},
	} {
		t.Run(name, func(t *testing.T) {
			host, pod := node(t), nettest.NewNS(t)
			s := spec(pod, "10.9.0.2", "fd00:9::2")
			if _, err := Connect(t.Context(), host.Handle(), s); err != nil {
				t.Fatal(err)
			}
			tc.spoil(host, pod, s)
			if err := Check(host.Handle(), s); !errors.Is(err, ErrDiffers) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("Check says %v; want ErrDiffers and %q", err, tc.says)
			}
			if _, err := Connect(t.Context(), host.Handle(), s); err != nil {
				t.Fatal(err)
			}
			if err := Check(host.Handle(), s); err != nil {
				t.Error(err)
			}
			wantReachable(t, host, pod, s)
		})
	}
}

// stepCount returns the number of steps that connect a dual-stack pod.
func stepCount() int {
	two := []netip.Addr{netip.MustParseAddr("10.9.0.2"), netip.MustParseAddr("fd00:9::2")}
	return len((&pair{spec: Spec{Addresses: two}}).steps(context.Background()))
}

// begin returns a pair whose steps a test can interrupt.
func begin(t *testing.T, host *nettest.NS, s Spec) *pair {
	t.Helper()
	pod, err := open(host.Handle(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { pod.Close() })
	return &pair{spec: s, host: host.Handle(), pod: pod}
}

func TestPrivilegedRetryAfterACrashAtEveryStep(t *testing.T) {
	nettest.Privileged(t)
	for n := range stepCount() + 1 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			host, pod := node(t), nettest.NewNS(t)
			s := spec(pod, "10.9.0.2", "fd00:9::2")
			p := begin(t, host, s)
			if err := p.make(p.steps(t.Context())[:n]); err != nil { // then the daemon is killed
				t.Fatal(err)
			}
			if err := Check(host.Handle(), s); (err == nil) != (n >= stepCount()-1) { // the last step only waits
				t.Errorf("after %d of %d steps, Check says %v", n, stepCount(), err)
			}
			if _, err := Connect(t.Context(), host.Handle(), s); err != nil {
				t.Fatal(err)
			}
			if err := Check(host.Handle(), s); err != nil {
				t.Error(err)
			}
			wantReachable(t, host, pod, s)
		})
	}
}

func TestPrivilegedDisconnectAfterACrashAtEveryStep(t *testing.T) {
	nettest.Privileged(t)
	for n := range stepCount() + 1 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			host, pod := node(t), nettest.NewNS(t)
			s := spec(pod, "10.9.0.2", "fd00:9::2")
			p := begin(t, host, s)
			if err := p.make(p.steps(t.Context())[:n]); err != nil {
				t.Fatal(err)
			}
			if err := NewRemover(host.Handle()).Disconnect(s.HostIfName); err != nil {
				t.Fatal(err)
			}
			wantNothing(t, host)
		})
	}
}

func TestPrivilegedFailureAtEveryStepLeavesNothing(t *testing.T) {
	nettest.Privileged(t)
	broken := errors.New("no luck")
	for n := range stepCount() + 1 {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			t.Parallel()
			host, pod := node(t), nettest.NewNS(t)
			p := begin(t, host, spec(pod, "10.9.0.2", "fd00:9::2"))
			fail := step{"break", func() error { return broken }}
			if err := p.make(append(p.steps(t.Context())[:n:n], fail)); !errors.Is(err, broken) || !strings.Contains(err.Error(), "break: ") {
				t.Errorf("error = %v", err)
			}
			wantNothing(t, host)
			if _, err := pod.Handle().LinkByName("eth0"); !errors.Is(err, nl.ErrNotFound) {
				t.Errorf("pod's device: %v, want none", err)
			}
		})
	}
}

func TestPrivilegedFailedConnectLeavesNothing(t *testing.T) {
	nettest.Privileged(t)
	host, pod := node(t), nettest.NewNS(t)
	s := spec(pod, "10.9.0.2")
	s.MTU = 100000 // more than a veth allows
	if _, err := Connect(t.Context(), host.Handle(), s); err == nil || !strings.Contains(err.Error(), "add device: ") {
		t.Errorf("error = %v", err)
	}
	s.MTU, s.Netns = 1420, "/var/run/netns/sealane-none"
	if _, err := Connect(t.Context(), host.Handle(), s); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("a namespace that is not there: %v", err)
	}
	if err := Check(host.Handle(), s); !errors.Is(err, nl.ErrNotFound) {
		t.Errorf("check without a namespace: %v", err)
	}
	wantNothing(t, host)
}

// Connect would replace the node's eth0 if a pod's namespace were the node's.
func TestPrivilegedTheHostIsNoPod(t *testing.T) {
	nettest.Privileged(t)
	host := node(t)
	host.Run("ip", "link", "add", "eth0", "type", "bridge")
	s := spec(host, "10.9.0.2")
	if _, err := Connect(t.Context(), host.Handle(), s); !errors.Is(err, ErrSpec) {
		t.Errorf("connect: %v, want ErrSpec", err)
	}
	if l, err := host.Handle().LinkByName("eth0"); err != nil || l.Kind != "bridge" {
		t.Errorf("the node's eth0: %+v, %v", l, err)
	}
	if err := NewRemover(host.Handle()).Disconnect("eth0"); !errors.Is(err, ErrSpec) {
		t.Errorf("disconnect of the node's eth0: %v, want ErrSpec", err)
	}
	wantNothing(t, host)
}

func TestPrivilegedDisconnectWhenTheNamespaceIsGone(t *testing.T) {
	nettest.Privileged(t)
	host, pod := node(t), nettest.NewNS(t)
	s := spec(pod, "10.9.0.2", "fd00:9::2")
	if _, err := Connect(t.Context(), host.Handle(), s); err != nil {
		t.Fatal(err)
	}
	pod.Remove()
	if err := NewRemover(host.Handle()).Disconnect(s.HostIfName); err != nil {
		t.Error(err)
	}
	wantNothing(t, host)
}

func TestPrivilegedManyPodsAtOnce(t *testing.T) {
	nettest.Privileged(t)
	host := node(t)
	var all sync.WaitGroup
	specs := make([]Spec, 20)
	for i := range specs {
		specs[i] = spec(nettest.NewNS(t), fmt.Sprint("10.9.0.", 2+i), fmt.Sprint("fd00:9::", 2+i))
		all.Go(func() {
			if _, err := Connect(t.Context(), host.Handle(), specs[i]); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	for _, s := range specs {
		if err := Check(host.Handle(), s); err != nil {
			t.Error(err)
		}
		all.Go(func() {
			if err := NewRemover(host.Handle()).Disconnect(s.HostIfName); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	wantNothing(t, host)
}

func BenchmarkPrivilegedConnect(b *testing.B) {
	nettest.Privileged(b)
	host, pod := node(b), nettest.NewNS(b)
	s := spec(pod, "10.9.0.2", "fd00:9::2")
	for b.Loop() {
		if _, err := Connect(b.Context(), host.Handle(), s); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		if err := NewRemover(host.Handle()).Disconnect(s.HostIfName); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
	}
}

// TestPrivilegedManyGoTogether disconnects some of many pods at once.
func TestPrivilegedManyGoTogether(t *testing.T) {
	nettest.Privileged(t)
	host := node(t)
	remover := NewRemover(host.Handle())
	var stay, leave []Spec
	for i := range 30 {
		s := spec(nettest.NewNS(t), fmt.Sprintf("10.9.0.%d", i+2))
		if _, err := Connect(t.Context(), host.Handle(), s); err != nil {
			t.Fatal(err)
		}
		if i%3 == 0 {
			stay = append(stay, s)
		} else {
			leave = append(leave, s, s) // twice, so that another call is deleting it
		}
	}
	var group errgroup.Group
	for _, s := range leave {
		group.Go(func() error {
			if err := remover.Disconnect(s.HostIfName); err != nil {
				return err
			}
			if _, err := host.Handle().LinkByName(s.HostIfName); !errors.Is(err, nl.ErrNotFound) {
				return fmt.Errorf("%s is still there: %w", s.HostIfName, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		t.Error(err)
	}
	for _, s := range stay {
		if err := Check(host.Handle(), s); err != nil {
			t.Errorf("a pod that stays: %v", err)
		}
	}
}

func BenchmarkPrivilegedDisconnect(b *testing.B) {
	nettest.Privileged(b)
	host, pod := node(b), nettest.NewNS(b)
	s := spec(pod, "10.9.0.2", "fd00:9::2")
	for b.Loop() {
		b.StopTimer()
		if _, err := Connect(b.Context(), host.Handle(), s); err != nil {
			b.Fatal(err)
		}
		b.StartTimer()
		if err := NewRemover(host.Handle()).Disconnect(s.HostIfName); err != nil {
			b.Fatal(err)
		}
	}
}
