// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nettest

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"

	"github.com/sealane/sealane/internal/nl"
)

// Impairment describes what a bad network does to packets.
type Impairment struct {
	Delay time.Duration
	// Reordered is the percentage of packets that are not delayed, and so overtake the
	// rest.
	Reordered float32
}

// Impaired is a device that sends through a bad network.
type Impaired struct {
	ns     *NS
	device string
	links  *netlink.Handle
	index  int
}

// netemLimit is how many packets a bad network holds: more than any sender here sends
// within the delay, even after a stall of an emulated machine.
const netemLimit = 100_000

// Impair makes packets that the device sends pass a bad network (tc-netem(8)), as long as
// the namespace lives. The error is nl.ErrUnsupported if this kernel has no netem.
func (n *NS) Impair(device string, i Impairment) (*Impaired, error) {
	n.t.Helper()
	links, err := n.netlink()
	if err != nil {
		return nil, err
	}
	l, err := links.LinkByName(device)
	if err != nil {
		return nil, fmt.Errorf("find device %s: %w", device, err)
	}
	q := &Impaired{ns: n, device: device, links: links, index: l.Attrs().Index}
	err = links.QdiscReplace(netlink.NewNetem(
		netlink.QdiscAttrs{LinkIndex: q.index, Handle: netlink.MakeHandle(1, 0), Parent: netlink.HANDLE_ROOT},
		netlink.NetemQdiscAttrs{Latency: uint32(i.Delay.Microseconds()), ReorderProb: i.Reordered, Limit: netemLimit},
	))
	if errors.Is(err, os.ErrNotExist) { // no queueing discipline of that kind
		err = fmt.Errorf("%w: %w", nl.ErrUnsupported, err)
	}
	if err != nil {
		return nil, fmt.Errorf("impair device %s: %w", device, err)
	}
	return q, nil
}

// netlink returns the library's own handle for the namespace, open until the test ends.
func (n *NS) netlink() (*netlink.Handle, error) {
	at, err := netns.GetFromPath(n.Path)
	if err != nil {
		return nil, fmt.Errorf("open namespace: %w", err)
	}
	defer func() { _ = at.Close() }()
	h, err := netlink.NewHandleAt(at)
	if err != nil {
		return nil, fmt.Errorf("open netlink: %w", err)
	}
	n.t.Cleanup(h.Close)
	return h, nil
}

// Overflowed counts the packets that found the network's queue full.
func (q *Impaired) Overflowed() (int, error) {
	l, err := q.links.LinkByIndex(q.index)
	if err != nil {
		return 0, fmt.Errorf("find device %s: %w", q.device, err)
	}
	all, err := q.links.QdiscList(l)
	if err != nil {
		return 0, fmt.Errorf("list queueing disciplines of %s: %w", q.device, err)
	}
	for _, d := range all {
		a := d.Attrs()
		if a.Parent == netlink.HANDLE_ROOT && d.Type() == "netem" && a.Statistics != nil {
			return int(a.Statistics.Queue.Drops), nil
		}
	}
	return 0, fmt.Errorf("netem of %s: %w", q.device, nl.ErrNotFound)
}
