// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"
	"fmt"
	"net"

	"github.com/vishvananda/netlink"
	rtnl "github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
)

// Link is a network device.
type Link struct {
	Index     int
	Name      string
	Kind      string // as `ip -d link` names it: "veth", "wireguard", "vxlan", "tun", "device" …
	Alias     string
	MTU       int // bytes
	Up        bool
	MAC       net.HardwareAddr // empty for layer-3 devices
	Group     uint32           // device group, as nftables' `meta oifgroup` sees it
	PeerIndex int              // veth: index of the other end in its own namespace; 0 otherwise
}

// LinkSettings changes a device. A zero field changes nothing.
type LinkSettings struct {
	MTU   int // bytes
	Queue int // packets that may wait to be sent
	Alias string
	Group uint32
	MAC   net.HardwareAddr
	State LinkState // applied last, so that a device comes up complete
}

// LinkState is the administrative state wanted of a device.
type LinkState uint8

// The wanted states; KeepState leaves the device as it is.
const (
	KeepState LinkState = iota
	Up
	Down
)

// Veth describes a pair of virtual Ethernet devices. The peer is created directly
// in its namespace, so it is never visible in the host's.
type Veth struct {
	Name       string
	MAC        net.HardwareAddr
	Alias      string
	Group      uint32
	MTU        int
	PeerName   string
	PeerMAC    net.HardwareAddr
	PeerNetns  string // path; empty means the Handle's own namespace
	QueueCount int    // transmit and receive queues of both ends; 0 means the kernel's default
}

// VXLAN describes an externally controlled VXLAN device (ip link … external): the
// outer destination and the VNI come with each packet from eBPF. It answers no ARP.
type VXLAN struct {
	Name string
	MAC  net.HardwareAddr
	MTU  int
	Port uint16 // UDP; 4789 by RFC 7348
}

// Links returns all devices of the namespace.
func (h *Handle) Links() ([]Link, error) {
	raw, err := dump(h.h.LinkList)
	if err != nil {
		return nil, kernelError(err, "list devices")
	}
	out := make([]Link, 0, len(raw))
	for _, l := range raw {
		out = append(out, toLink(l))
	}
	return out, nil
}

// LinkByName returns the device called name, or ErrNotFound.
func (h *Handle) LinkByName(name string) (Link, error) {
	l, err := h.h.LinkByName(name)
	if err != nil {
		return Link{}, kernelError(err, "find device %s", name)
	}
	return toLink(l), nil
}

// LinkByIndex returns the device with that index, or ErrNotFound.
func (h *Handle) LinkByIndex(index int) (Link, error) {
	l, err := h.h.LinkByIndex(index)
	if err != nil {
		return Link{}, kernelError(err, "find device %d", index)
	}
	return toLink(l), nil
}

func toLink(l netlink.Link) Link {
	a := l.Attrs()
	out := Link{
		Index: a.Index, Name: a.Name, Kind: l.Type(), Alias: a.Alias, MTU: a.MTU,
		Up: a.Flags&net.FlagUp != 0, MAC: a.HardwareAddr, Group: a.Group,
	}
	if tap, ok := l.(*netlink.Tuntap); ok && tap.Mode == netlink.TUNTAP_MODE_TUN {
		out.Kind = "tun"
	}
	if out.Kind == "veth" {
		out.PeerIndex = a.ParentIndex
	}
	return out
}

// AddVeth creates the pair and returns its end in the Handle's namespace. Both
// ends are down. The error is ErrExists when either name is taken, and ErrNotFound
// when the peer's namespace is gone; then nothing was created.
func (h *Handle) AddVeth(v Veth) (Link, error) {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.Group, attrs.HardwareAddr = v.Name, v.MTU, v.Group, v.MAC
	if v.QueueCount > 0 {
		attrs.NumTxQueues, attrs.NumRxQueues = v.QueueCount, v.QueueCount
	}
	veth := netlink.NewVeth(attrs)
	veth.PeerName, veth.PeerHardwareAddr, veth.PeerMTU = v.PeerName, v.PeerMAC, uint32(v.MTU)
	if v.PeerNetns != "" {
		ns, err := openNamespace(v.PeerNetns)
		if err != nil {
			return Link{}, fmt.Errorf("add veth %s: %w", v.Name, err)
		}
		defer func() { _ = ns.Close() }()
		veth.PeerNamespace = netlink.NsFd(ns)
	}
	return h.addLink(veth, v.Alias)
}

// AddWireGuard creates a kernel WireGuard device, down and without keys. The error
// is ErrUnsupported if this kernel has no WireGuard.
func (h *Handle) AddWireGuard(name string, mtu int) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU = name, mtu
	_, err := h.addLink(&netlink.Wireguard{LinkAttrs: attrs}, "")
	return err
}

// probeName is a device that exists for the length of a probe.
const probeName = "sealane-probe"

// HasWireGuard reports whether this kernel has WireGuard, and loads its module if
// necessary.
func (h *Handle) HasWireGuard() (bool, error) {
	err := h.AddWireGuard(probeName, 0)
	switch {
	case errors.Is(err, ErrUnsupported):
		return false, nil
	case err == nil, errors.Is(err, ErrExists): // another process is probing at this moment
		return true, h.DeleteLink(probeName)
	}
	return false, err
}

// AddVXLAN creates an externally controlled VXLAN device, down.
func (h *Handle) AddVXLAN(v VXLAN) error {
	attrs := netlink.NewLinkAttrs()
	attrs.Name, attrs.MTU, attrs.HardwareAddr = v.Name, v.MTU, v.MAC
	l, err := h.addLink(&netlink.Vxlan{
		LinkAttrs: attrs, FlowBased: true, Port: int(v.Port), UDP6ZeroCSumTx: true, UDP6ZeroCSumRx: true,
	}, "")
	if err != nil {
		return err
	}
	// Every node has the same fixed MAC, so there is nothing to resolve.
	return kernelError(h.h.LinkSetARPOff(byIndex(l.Index)), "switch off ARP on %s", v.Name)
}

// addLink creates a device and removes it again if it cannot be completed.
func (h *Handle) addLink(l netlink.Link, alias string) (Link, error) {
	name := l.Attrs().Name
	if err := h.h.LinkAdd(l); err != nil {
		return Link{}, kernelError(err, "add %s device %s", l.Type(), name)
	}
	created, err := h.LinkByName(name)
	if err == nil && alias != "" {
		err = h.SetLink(created.Index, LinkSettings{Alias: alias})
		created.Alias = alias
	}
	if err != nil {
		return Link{}, errors.Join(err, h.DeleteLink(name))
	}
	return created, nil
}

// DeleteLink removes the device called name; a missing one is no error.
func (h *Handle) DeleteLink(name string) error {
	l, err := h.h.LinkByName(name)
	if err == nil {
		// Delete by index, because the name may have moved to another device between the
		// two calls.
		err = h.h.LinkDel(byIndex(l.Attrs().Index))
	}
	if err = kernelError(err, "delete device %s", name); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// DeleteGroup deletes all devices of a group at once; an empty group is no error. Deleting
// many takes the kernel hardly longer than deleting one, because it waits only once for
// packets in flight through any device (rtnl_group_dellink in net/core/rtnetlink.c). Group
// 0, the default of all devices, is ErrInvalid.
func (h *Handle) DeleteGroup(group uint32) error {
	if group == 0 {
		return fmt.Errorf("delete devices of group 0: %w", ErrInvalid)
	}
	err := h.Do(func() error {
		request := rtnl.NewNetlinkRequest(unix.RTM_DELLINK, unix.NLM_F_ACK)
		request.AddData(rtnl.NewIfInfomsg(unix.AF_UNSPEC))
		request.AddData(rtnl.NewRtAttr(unix.IFLA_GROUP, rtnl.Uint32Attr(group)))
		_, err := request.Execute(unix.NETLINK_ROUTE, 0)
		return err
	})
	if err = kernelError(err, "delete devices of group %d", group); errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

// SetLink changes the device with that index.
func (h *Handle) SetLink(index int, s LinkSettings) error {
	l := byIndex(index)
	steps := []struct {
		what string
		skip bool
		do   func() error
	}{
		{"mtu", s.MTU == 0, func() error { return h.h.LinkSetMTU(l, s.MTU) }},
		{"queue length", s.Queue == 0, func() error { return h.h.LinkSetTxQLen(l, s.Queue) }},
		{"alias", s.Alias == "", func() error { return h.h.LinkSetAlias(l, s.Alias) }},
		{"group", s.Group == 0, func() error { return h.h.LinkSetGroup(l, int(s.Group)) }},
		{"address", len(s.MAC) == 0, func() error { return h.h.LinkSetHardwareAddr(l, s.MAC) }},
		{"state", s.State != Up, func() error { return h.h.LinkSetUp(l) }},
		{"state", s.State != Down, func() error { return h.h.LinkSetDown(l) }},
	}
	for _, step := range steps {
		if step.skip {
			continue
		}
		if err := step.do(); err != nil {
			return kernelError(err, "set %s of device %d", step.what, index)
		}
	}
	return nil
}

// byIndex returns a link for library calls that need only the index.
func byIndex(index int) netlink.Link {
	attrs := netlink.NewLinkAttrs()
	attrs.Index = index
	return &netlink.GenericLink{LinkAttrs: attrs}
}
