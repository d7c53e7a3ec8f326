// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/internal/nettest"
)

// BenchmarkPrivilegedSteps measures each step of an ADD, and the DEL.
func BenchmarkPrivilegedSteps(b *testing.B) {
	for name, addresses := range map[string][]netip.Addr{
		"IPv4": {netip.MustParseAddr("10.1.0.2")},
		"dual": {netip.MustParseAddr("10.1.0.2"), netip.MustParseAddr("fd00:1::2")},
	} {
		b.Run(name, func(b *testing.B) {
			nettest.Privileged(b)
			h := nettest.NewNS(b).Handle()
			took := map[string]time.Duration{}
			for i := range b.N {
				b.StopTimer()
				ns := nettest.NewNS(b)
				owner := ipam.Owner{ContainerID: fmt.Sprint(i), IfName: "eth0"}
				s := Spec{Owner: owner, Netns: ns.Path, IfName: "eth0", HostIfName: HostName(owner), Addresses: addresses, MTU: 1440}
				b.StartTimer()
				began := time.Now()
				pod, err := open(h, s)
				if err != nil {
					b.Fatal(err)
				}
				p := &pair{spec: s, host: h, pod: pod}
				lap := func(what string) {
					took[what] += time.Since(began)
					began = time.Now()
				}
				lap("open")
				_ = p.find()
				lap("find")
				if err := p.clear(); err != nil {
					b.Fatal(err)
				}
				lap("clear")
				for _, step := range p.steps(b.Context()) {
					if err := step.do(); err != nil {
						b.Fatal(err)
					}
					lap(step.what)
				}
				_ = pod.Close()
				lap("close")
				if err := NewRemover(h).Disconnect(s.HostIfName); err != nil {
					b.Fatal(err)
				}
				lap("disconnect")
				b.StopTimer()
				ns.Remove()
				b.StartTimer()
			}
			for what, d := range took {
				b.ReportMetric(float64(d.Microseconds())/float64(b.N), strings.ReplaceAll(what, " ", "-")+"-us")
			}
		})
	}
}
