// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"

	"github.com/sealane/sealane/internal/nl"
)

// Encapsulation says whether packets on a device begin with an Ethernet header.
type Encapsulation int

// The two kinds of device.
const (
	L3 Encapsulation = iota // IP packets, as on WireGuard and TUN devices
	L2                      // Ethernet frames
)

func (e Encapsulation) String() string {
	if e == L2 {
		return "l2"
	}
	return "l3"
}

// Device is a network device of the host's namespace.
type Device struct {
	Index int
	Name  string
}

// AttachPod attaches the programs to the host side of a pod's device. It may be called
// again, to replace the programs with this daemon's without a gap.
//
// It uses clsact on every kernel. The advantage of tcx, coexistence with programs of other
// owners, does not matter on a device that only Sealane uses; and each tcx attach or detach
// waits for an RCU grace period (10 ms or more) while it holds the lock that every change
// of a device in the system needs.
func (d *Datapath) AttachPod(dev Device) error {
	for dir, name := range map[nl.Direction]string{nl.Ingress: podProgPodEgress, nl.Egress: podProgPodIngress} {
		err := d.links.AttachClsact(dev.Index, dir, d.programs[name].FD(), "sealane")
		if err == nil && d.tcx {
			err = removeIfPresent(d.linkPin(dev.Name, dir)) // left by a daemon that used tcx
		}
		if err != nil {
			return fmt.Errorf("attach %s to %s: %w", name, dev.Name, err)
		}
	}
	return nil
}

// AttachTunnel attaches the programs to a tunnel device. It may be called again.
func (d *Datapath) AttachTunnel(dev Device, e Encapsulation) error {
	return d.attachBoth(dev, "lane_ingress_"+e.String(), "lane_egress_"+e.String())
}

// AttachUplink attaches the leak guard to a device that leads out of the node. It may be
// called again.
func (d *Datapath) AttachUplink(dev Device, e Encapsulation) error {
	return d.attachBoth(dev, "uplink_ingress_"+e.String(), "uplink_egress_"+e.String())
}

func (d *Datapath) attachBoth(dev Device, ingress, egress string) error {
	if err := d.attach(dev, nl.Ingress, d.programs[ingress]); err != nil {
		return fmt.Errorf("attach %s to %s: %w", ingress, dev.Name, err)
	}
	if err := d.attach(dev, nl.Egress, d.programs[egress]); err != nil {
		return fmt.Errorf("attach %s to %s: %w", egress, dev.Name, err)
	}
	return nil
}

func (d *Datapath) attach(dev Device, dir nl.Direction, prog *ebpf.Program) error {
	if !d.tcx {
		return d.links.AttachClsact(dev.Index, dir, prog.FD(), "sealane")
	}
	pin := d.linkPin(dev.Name, dir)
	if done, err := updatePinned(pin, dev.Index, prog); done || err != nil {
		return err
	}
	l, err := link.AttachTCX(link.TCXOptions{Interface: dev.Index, Program: prog, Attach: attachType(dir), Anchor: link.Head()})
	if err != nil {
		return fmt.Errorf("attach: %w", err)
	}
	if err := l.Pin(pin); err != nil {
		return errors.Join(fmt.Errorf("pin link: %w", err), l.Close())
	}
	return l.Close() // the pin keeps it
}

// updatePinned replaces the program of a link that an earlier daemon pinned. It removes a
// link that belongs to an earlier device of the same name.
func updatePinned(pin string, index int, prog *ebpf.Program) (bool, error) {
	l, err := link.LoadPinnedLink(pin, nil)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("open pinned link: %w", err)
	}
	defer l.Close()
	info, err := l.Info()
	if err != nil {
		return false, fmt.Errorf("read pinned link: %w", err)
	}
	if t := info.TCX(); t == nil || int(t.Ifindex) != index {
		return false, l.Unpin()
	}
	if err := l.Update(prog); err != nil {
		return false, fmt.Errorf("replace program: %w", err)
	}
	return true, nil
}

func attachType(dir nl.Direction) ebpf.AttachType {
	if dir == nl.Ingress {
		return ebpf.AttachTCXIngress
	}
	return ebpf.AttachTCXEgress
}

// Detach takes the programs off a device. For a device that is gone, and so has no Index,
// it only forgets them.
func (d *Datapath) Detach(dev Device) error {
	var errs []error
	for _, dir := range []nl.Direction{nl.Ingress, nl.Egress} {
		errs = append(errs, d.detach(dev, dir))
	}
	return errors.Join(errs...)
}

// detach removes the program in the way that attached it: a pin means tcx.
func (d *Datapath) detach(dev Device, dir nl.Direction) error {
	err := fs.ErrNotExist
	if d.tcx {
		err = os.Remove(d.linkPin(dev.Name, dir))
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	if dev.Index == 0 {
		return nil // the filter went with the device
	}
	return d.links.DetachClsact(dev.Index, dir)
}

// haveTCX probes for tcx (Linux 6.6) with a program of ours on loopback, the one device
// that always exists.
func haveTCX(prog *ebpf.Program) (bool, error) {
	l, err := link.AttachTCX(link.TCXOptions{Interface: 1, Program: prog, Attach: ebpf.AttachTCXIngress})
	if errors.Is(err, ebpf.ErrNotSupported) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("probe for tcx: %w", err)
	}
	return true, l.Close()
}
