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
	"slices"
	"strings"

	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/internal/canonical"
	"github.com/sealane/sealane/internal/nl"
)

const (
	// HostPrefix begins the name of the host side of every pod's device.
	HostPrefix = "slp"
	// DeviceGroup is the device group of all devices of Sealane.
	DeviceGroup = 0x5ea1
	// RouteProtocol marks the host's routes to its own pods.
	RouteProtocol = 95

	minMTU4 = 68   // RFC 791, section 3.2
	minMTU6 = 1280 // RFC 8200, section 5; with less the kernel disables IPv6 on the device
	// maxAlias is the longest alias of a device (IFALIASZ - 1).
	maxAlias = 255
	// loopback is the index of the loopback device in every network namespace
	// (LOOPBACK_IFINDEX).
	loopback = 1
)

var (
	// ErrSpec means that a Spec cannot be carried out. Nothing was changed.
	ErrSpec = errors.New("invalid pod network")
	// ErrDiffers means that a pod's network is not as Connect made it.
	ErrDiffers = errors.New("pod network differs")
)

// Spec describes the network device of one pod.
type Spec struct {
	Owner      ipam.Owner
	Netns      string       // path of the pod's network namespace
	IfName     string       // name of the inner end, e.g. eth0
	HostIfName string       // name of the outer end: HostName(Owner)
	Addresses  []netip.Addr // one per family
	MTU        int          // bytes; 0, allowed for Check only, means any that both ends share
	// OnCreate is called with the index of the host's end before any packet can enter or
	// leave the pod, and again when a retry finds the device complete. Connect fails with
	// its error. It may be nil.
	OnCreate func(hostIndex int) error
}

func (s Spec) onCreate(hostIndex int) error {
	if s.OnCreate == nil {
		return nil
	}
	return s.OnCreate(hostIndex)
}

// Result is what Connect made.
type Result struct {
	HostIndex       int
	HostMAC, PodMAC net.HardwareAddr
}

// HostName returns the name of the host side of an owner's device: stable, and different
// for different owners.
func HostName(o ipam.Owner) string {
	sum := sha256.Sum256([]byte(o.ContainerID + "/" + o.IfName))
	return HostPrefix + hex.EncodeToString(sum[:])[:11]
}

// HostMAC returns the hardware address of the host side of every device. It is set
// explicitly, which keeps udev from choosing another.
func HostMAC() net.HardwareAddr { return net.HardwareAddr{0xee, 0xee, 0xee, 0x5e, 0xa1, 0x01} }

// PodMAC returns the hardware address of the pod side: derived from the pod's first IPv4
// address, else from a hash of its IPv6 address, so that nothing has to store it. It is
// locally administered (IEEE 802, 8.4).
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

// Gateway returns the next hop of a pod's default route for the family of a: the same in
// every pod, and an address of no device (RFC 3927, RFC 4291 2.5.6).
func Gateway(a netip.Addr) netip.Addr {
	if a.Is4() {
		return netip.AddrFrom4([4]byte{169, 254, 1, 1})
	}
	return netip.AddrFrom16([16]byte{0xfe, 0x80, 15: 1})
}

// validate returns an error that says why s is impossible.
func (s Spec) validate() error {
	switch {
	case s.Netns == "" || s.IfName == "":
		return fmt.Errorf("%w: netns %q and device %q must be named", ErrSpec, s.Netns, s.IfName)
	case len(s.Addresses) == 0:
		return fmt.Errorf("%w: no address", ErrSpec)
	case s.MTU < minMTU4:
		return fmt.Errorf("%w: MTU is %d: IPv4 needs at least %d", ErrSpec, s.MTU, minMTU4)
	case s.has6() && s.MTU < minMTU6:
		return fmt.Errorf("%w: MTU is %d: IPv6 needs at least %d", ErrSpec, s.MTU, minMTU6)
	}
	for i, a := range s.Addresses {
		if !canonical.Address(a) {
			return fmt.Errorf("%w: address %d is %q", ErrSpec, i, a)
		}
		if slices.ContainsFunc(s.Addresses[:i], func(b netip.Addr) bool { return a.Is4() == b.Is4() }) {
			return fmt.Errorf("%w: addresses %v: there can be one per family", ErrSpec, s.Addresses)
		}
	}
	return validHostName(s.HostIfName)
}

// validHostName keeps the package from ever changing a foreign device.
func validHostName(name string) error {
	if !strings.HasPrefix(name, HostPrefix) {
		return fmt.Errorf("%w: host device is %q: it must begin with %q", ErrSpec, name, HostPrefix)
	}
	return nil
}

func (s Spec) has6() bool { return slices.ContainsFunc(s.Addresses, netip.Addr.Is6) }

// alias shows, in a list of the host's devices, which pod this one belongs to.
func (s Spec) alias() string {
	alias := s.Owner.String()
	return alias[:min(len(alias), maxAlias)]
}

// host returns the prefix that holds only the address a.
func host(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, a.BitLen()) }

// everything returns the prefix that holds all addresses of the family of a.
func everything(a netip.Addr) netip.Prefix { return netip.PrefixFrom(a, 0).Masked() }

// inner returns the default route inside the pod.
func inner(a netip.Addr, device int) nl.Route {
	return nl.Route{Dst: everything(a), Via: Gateway(a), Device: device, Onlink: true, Table: nl.MainTable, Protocol: RouteProtocol}
}

// outer returns the host's route to the pod.
func outer(a netip.Addr, device int) nl.Route {
	return nl.Route{Dst: host(a), Device: device, Table: nl.MainTable, Protocol: RouteProtocol}
}
