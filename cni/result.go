// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"net"
	"net/netip"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Device is one end of a pod's device, as the result of an ADD describes it.
type Device struct {
	Name string
	MAC  net.HardwareAddr
	MTU  int // bytes
}

// IP is an address of a pod, and the next hop of its default route.
type IP struct {
	Addr, Gateway netip.Addr
}

// NewResult returns the result of an ADD: both ends of the device, the addresses, which are
// host routes on the pod's end, and a default route for each.
func NewResult(a Attachment, host, pod Device, ips []IP) *types100.Result {
	const podIndex = 1
	r := &types100.Result{
		CNIVersion: types100.ImplementedSpecVersion,
		Interfaces: []*types100.Interface{
			{Name: host.Name, Mac: host.MAC.String(), Mtu: host.MTU},
			{Name: pod.Name, Mac: pod.MAC.String(), Mtu: pod.MTU, Sandbox: a.Netns},
		},
	}
	for _, ip := range ips {
		bits := ip.Addr.BitLen()
		all := netip.PrefixFrom(ip.Addr, 0).Masked()
		r.IPs = append(r.IPs, &types100.IPConfig{
			Interface: types100.Int(podIndex),
			Address:   net.IPNet{IP: ip.Addr.AsSlice(), Mask: net.CIDRMask(bits, bits)},
			Gateway:   ip.Gateway.AsSlice(),
		})
		r.Routes = append(r.Routes, &types.Route{
			Dst: net.IPNet{IP: all.Addr().AsSlice(), Mask: net.CIDRMask(0, bits)},
			GW:  ip.Gateway.AsSlice(),
		})
	}
	return r
}

// Addresses returns the addresses in a result, for example in Attachment.Prev.
func Addresses(r *types100.Result) []netip.Addr {
	if r == nil {
		return nil
	}
	var addrs []netip.Addr
	for _, ip := range r.IPs {
		if addr, ok := netip.AddrFromSlice(ip.Address.IP); ok {
			addrs = append(addrs, addr.Unmap())
		}
	}
	return addrs
}

// PodMTU returns the MTU in bytes of the attachment's end inside the pod according to Prev,
// or 0 if Prev has none: results before version 1.1.0 cannot.
func PodMTU(a Attachment) int {
	if a.Prev == nil {
		return 0
	}
	for _, device := range a.Prev.Interfaces {
		if device.Name == a.IfName && device.Sandbox != "" {
			return device.Mtu
		}
	}
	return 0
}
