// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/internal/nl"
)

const (
	// HostPrefix begins the name of the host side of every pod's device.
	HostPrefix = "slp"
	// DeviceGroup is the device group of every device of Sealane's.
	DeviceGroup = 0x5ea1
	// RouteProtocol marks the host's routes to its own pods.
	RouteProtocol = 95
)

var (
	// ErrSpec says that a Spec cannot be carried out.
	ErrSpec = errors.New("invalid pod network")
	// ErrDiffers says that a pod's network is not as Connect made it.
	ErrDiffers = errors.New("pod network differs")
)

// Spec describes the network device of one pod.
type Spec struct {
	Owner      ipam.Owner
	Netns      string       // path of the pod's network namespace
	IfName     string       // of the inner end, e.g. eth0
	HostIfName string       // of the outer end: HostName(Owner)
	Addresses  []netip.Addr // one per family
	MTU        int          // bytes
}

// Result is what Connect made.
type Result struct {
	HostIndex       int
	HostMAC, PodMAC net.HardwareAddr
}

// HostName is the name of the host side of an owner's device: stable, and
// different for different owners.
func HostName(o ipam.Owner) string {
	sum := sha256.Sum256([]byte(o.ContainerID + "/" + o.IfName))
	return HostPrefix + hex.EncodeToString(sum[:])[:11]
}

// HostMAC is the hardware address of the host side of every device. It is set
// explicitly, which keeps udev from choosing another.
func HostMAC() net.HardwareAddr { return net.HardwareAddr{0xee, 0xee, 0xee, 0x5e, 0xa1, 0x01} }

// PodMAC is the hardware address of the pod side: derived from the pod's first
// IPv4 address, else from a hash of its IPv6 address, so that nobody has to
// remember it. It is locally administered (IEEE 802, 8.4).
func PodMAC(addresses []netip.Addr) net.HardwareAddr {
	mac := net.HardwareAddr{0x0a, 0x58, 0, 0, 0, 0}
	for _, a := range addresses {
		if a.Is4() {
			copy(mac[2:], a.AsSlice())
			return mac
		}
	}
	for _, a := range addresses {
		sum := sha256.Sum256(a.AsSlice())
		copy(mac[2:], sum[len(sum)-4:])
	}
	return mac
}

// Gateway is the next hop of a pod's default route for the family of a: the
// same in every pod, and on no device (RFC 3927, RFC 4291 2.5.6).
func Gateway(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{169, 254, 1, 1})
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 15: 1})
}

func (s Spec) validate() error {
	switch {
	case s.Netns == "" || s.IfName == "" || s.HostIfName == "":
		return fmt.Errorf("%w: netns %q, device %q and host device %q must be named", ErrSpec, s.Netns, s.IfName, s.HostIfName)
	case len(s.Addresses) == 0:
		return fmt.Errorf("%w: no address", ErrSpec)
	case s.MTU < 68:
		return fmt.Errorf("%w: MTU %d: IPv4 needs at least 68", ErrSpec, s.MTU)
	}
	return nil
}

func (s Spec) has6() bool {
	for _, a := range s.Addresses {
		if a.Is6() {
			return true
		}
	}
	return false
}

// host writes an address as the prefix that holds nothing else.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

func everything(a netip.Addr) netip.Prefix {
	if a.Is4() {
		return netip.PrefixFrom(netip.IPv4Unspecified(), 0)
	}
	return netip.PrefixFrom(netip.IPv6Unspecified(), 0)
}

// inner is the default route inside the pod.
func inner(a netip.Addr, device int) nl.Route {
	return nl.Route{Dst: everything(a), Via: Gateway(a), Device: device, Onlink: true, Table: nl.MainTable, Protocol: RouteProtocol}
}

// outer is the host's route to the pod.
func outer(a netip.Addr, device int) nl.Route {
	return nl.Route{Dst: host(a), Device: device, Table: nl.MainTable, Protocol: RouteProtocol}
}
