// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// Direction is the side of a device that a program sees, as tc names it.
type Direction uint8

// Ingress is what the device receives, Egress what it is about to send.
const (
	Ingress Direction = iota
	Egress
)

func (d Direction) String() string {
	if d == Ingress {
		return "ingress"
	}
	return "egress"
}

func (d Direction) parent() uint32 {
	if d == Ingress {
		return netlink.HANDLE_MIN_INGRESS
	}
	return netlink.HANDLE_MIN_EGRESS
}

// filterPriority and filterHandle place our program among the filters of a hook. They are
// fixed, so that a new program replaces the old one in one step.
const (
	filterPriority = 1
	filterHandle   = 0x5ea1
)

// AttachClsact attaches a tc program to a device in direct-action mode, and replaces
// without a gap the one that an earlier call attached. It serves kernels without tcx
// (before Linux 6.6).
func (h *Handle) AttachClsact(index int, d Direction, progFD int, name string) error {
	qdisc := &netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}}
	if err := h.h.QdiscAdd(qdisc); err != nil && !errors.Is(err, unix.EEXIST) {
		return kernelError(err, "add clsact to device %d", index)
	}
	filter := clsactFilter(index, d)
	filter.Fd, filter.Name, filter.DirectAction = progFD, name, true
	return kernelError(h.h.FilterReplace(filter), "attach %s to %s of device %d", name, d, index)
}

// DetachClsact removes what AttachClsact attached; a missing filter is no error. The qdisc
// goes with the last filter of the device, whoever owns it.
func (h *Handle) DetachClsact(index int, d Direction) error {
	err := h.h.FilterDel(clsactFilter(index, d))
	if err != nil && !gone(err) {
		return kernelError(err, "detach from %s of device %d", d, index)
	}
	for _, dir := range []Direction{Ingress, Egress} {
		left, err := dump(func() ([]netlink.Filter, error) { return h.h.FilterList(byIndex(index), dir.parent()) })
		if err != nil && !gone(err) {
			return kernelError(err, "list filters of device %d", index)
		}
		if len(left) > 0 {
			return nil
		}
	}
	err = h.h.QdiscDel(&netlink.Clsact{QdiscAttrs: netlink.QdiscAttrs{
		LinkIndex: index, Handle: netlink.MakeHandle(0xffff, 0), Parent: netlink.HANDLE_CLSACT,
	}})
	if gone(err) {
		return nil
	}
	return kernelError(err, "delete clsact of device %d", index)
}

// gone reports whether the kernel found nothing to delete; without a clsact qdisc it
// answers the deletion of a filter with EINVAL.
func gone(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV)
}

func clsactFilter(index int, d Direction) *netlink.BpfFilter {
	return &netlink.BpfFilter{FilterAttrs: netlink.FilterAttrs{
		LinkIndex: index, Parent: d.parent(), Handle: filterHandle, Priority: filterPriority, Protocol: unix.ETH_P_ALL,
	}}
}
