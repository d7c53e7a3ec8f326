// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"fmt"
	"time"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/daemonset/kube"
)

// leakCheck is how often the leak guard's counters are looked at. The guard
// itself stops each packet; this only tells the operator.
const leakCheck = 10 * time.Second

// watchLeaks makes an Event when the leak guard had something to stop.
func (r *reports) watchLeaks(ctx context.Context, events reporter) error {
	before, err := r.datapath.Counters()
	if err != nil {
		return err
	}
	tick := time.NewTicker(leakCheck)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		after, err := r.datapath.Counters()
		if err != nil {
			return err
		}
		stopped := uint64(0)
		for _, reason := range []bpf.Reason{bpf.ReasonLeakEgress, bpf.ReasonLeakIngress} {
			stopped += after.Drops[reason].Packets - before.Drops[reason].Packets
		}
		before = after
		if stopped > 0 {
			r.tellLeak(ctx, events, stopped)
		}
	}
}

func (r *reports) tellLeak(ctx context.Context, events reporter, packets uint64) {
	text := fmt.Sprintf("the leak guard stopped %d packets with a pod's address in clear", packets)
	if l := r.node().LastLeak; l != nil {
		text += fmt.Sprintf("; the newest: %s to %s on %s (%s)", l.Source, l.Destination, l.Device, l.Reason)
	}
	r.log.Warn("leak stopped", "packets", packets)
	uid := ""
	if v := r.network.seen.Load(); v != nil {
		uid = v.self.UID
	}
	events.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: r.cfg.NodeName, UID: uid, Type: kube.EventWarning, Reason: "LeakStopped", Message: text,
	})
}
