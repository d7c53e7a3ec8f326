// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package report

import (
	"context"
	"fmt"
	"log/slog"
	"time"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
)

// leakCheck is how often the leak guard's counters are read. The guard itself stops
// each packet; this only tells the operator.
const leakCheck = 10 * time.Second

// Events makes Kubernetes Events. *kube.Client is one.
type Events interface {
	Event(context.Context, kube.EventSpec)
}

// Leaks makes an Event when the leak guard has stopped packets.
type Leaks struct {
	Node     func() keymgr.NodeID // without a UID as long as it is not known
	Datapath Datapath
	Links    interface{ LinkByIndex(int) (nl.Link, error) }
	Events   Events
	Logger   *slog.Logger
}

// Run watches until ctx ends.
func (l *Leaks) Run(ctx context.Context) error {
	before, err := l.Datapath.Counters()
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
		after, err := l.Datapath.Counters()
		if err != nil {
			return err
		}
		if stopped := leaked(after) - leaked(before); stopped > 0 {
			l.tell(ctx, stopped)
		}
		before = after
	}
}

func leaked(c bpf.Counters) uint64 {
	return c.Drops[bpf.ReasonLeakEgress].Packets + c.Drops[bpf.ReasonLeakIngress].Packets
}

func (l *Leaks) tell(ctx context.Context, packets uint64) {
	text := fmt.Sprintf("the leak guard stopped %d packets with a pod's address in clear", packets)
	leak, ok, err := lastLeak(l.Datapath, l.Links)
	if ok {
		text += fmt.Sprintf("; the newest: %s to %s on %s (%s)", leak.Source, leak.Destination, leak.Device, leak.Reason)
	}
	l.Logger.Warn("leak stopped", "packets", packets, "error", err)
	node := l.Node()
	l.Events.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: node.Name, UID: node.UID, Type: kube.EventWarning, Reason: "LeakStopped", Message: text,
	})
}

// lastLeak returns the newest packet that the leak guard has stopped; false: none.
func lastLeak(d Datapath, links interface{ LinkByIndex(int) (nl.Link, error) }) (status.Leak, bool, error) {
	leak, ok, err := d.LastLeak()
	if err != nil || !ok {
		return status.Leak{}, false, err
	}
	device := fmt.Sprintf("#%d", leak.Index) // of a device that is gone
	if l, err := links.LinkByIndex(leak.Index); err == nil {
		device = l.Name
	}
	return status.Leak{Source: leak.Source, Destination: leak.Destination, Device: device, Reason: leak.Reason.String()}, true, nil
}
