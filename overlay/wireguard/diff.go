// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package wireguard

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
)

const (
	// keepalive is the interval at which the node that initiates the handshakes of a pair
	// sends, so that a session never goes idle; upstream recommends 25 s.
	keepalive = 25 * time.Second
	// sessionEnd is the age at which the protocol ends a session (REJECT_AFTER_TIME).
	sessionEnd = 180 * time.Second
)

// situation is what diff needs to know besides the plan and the device.
type situation struct {
	now time.Time
	// announce makes this node initiate all handshakes, even where the peer is the
	// designated initiator. With preshared keys only the node that asked for the key
	// initiates.
	announce bool
	// preshared returns the preshared key shared with a peer; nil if there are none.
	preshared func(peer keymgr.PublicKey) (keymgr.PresharedKey, bool)
	// endpoints are those that this process has set. A peer whose endpoint the kernel has
	// since learned from an authenticated packet keeps the learned one.
	endpoints map[keymgr.PublicKey]netip.AddrPort
}

// diff returns the changes that make the device's peers as planned. Their order matters:
// peers get addresses before other peers leave.
func diff(lane overlay.Tunnel, have []wgtypes.Peer, s situation) ([]wgtypes.PeerConfig, error) {
	byKey := make(map[keymgr.PublicKey]wgtypes.Peer, len(have))
	for _, p := range have {
		byKey[keymgr.PublicKey(p.PublicKey)] = p
	}
	planned := make(map[keymgr.PublicKey]bool, len(lane.Peers))
	owners := map[netip.Prefix]bool{} // addresses that the plan assigns to a peer
	var out []wgtypes.PeerConfig
	var errs []error
	for _, want := range lane.Peers {
		key := want.Key.Key()
		planned[key] = true
		for _, p := range want.AllowedIPs {
			owners[p] = true
		}
		c, changed, err := diffPeer(want, byKey[key], s)
		errs = append(errs, err)
		if changed {
			out = append(out, c)
		}
	}
	out = append(out, bury(orphans(lane, byKey, owners))...)
	for _, p := range have {
		if !planned[keymgr.PublicKey(p.PublicKey)] {
			out = append(out, wgtypes.PeerConfig{PublicKey: p.PublicKey, Remove: true})
		}
	}
	return out, errors.Join(errs...)
}

// diffPeer compares one peer; have is the zero Peer if it is new.
func diffPeer(want overlay.TunnelPeer, have wgtypes.Peer, s situation) (wgtypes.PeerConfig, bool, error) {
	key := want.Key.Key()
	shared, err := s.sharedKey(want, have)
	if err != nil {
		return wgtypes.PeerConfig{}, false, err
	}
	isNew := have.PublicKey != wgtypes.Key(key)
	c := wgtypes.PeerConfig{PublicKey: wgtypes.Key(key), UpdateOnly: !isNew}
	changed := isNew
	if isNew || s.wantsEndpoint(want, have) {
		c.Endpoint, changed = net.UDPAddrFromAddrPort(want.Endpoint), true
	}
	if interval := s.interval(want); interval != have.PersistentKeepaliveInterval {
		c.PersistentKeepaliveInterval, changed = &interval, true
	}
	if shared != have.PresharedKey {
		c.PresharedKey, changed = &shared, true
	}
	allowed := prefixes(have.AllowedIPs)
	for _, p := range want.AllowedIPs {
		if !slices.Contains(allowed, p) {
			c.AllowedIPs, changed = append(c.AllowedIPs, ipNet(p)), true
		}
	}
	return c, changed, nil
}

// sharedKey returns the preshared key that the peer must have, or zero for none. A daemon
// that has just started finds the keys in the devices.
func (s situation) sharedKey(want overlay.TunnelPeer, have wgtypes.Peer) (wgtypes.Key, error) {
	if !want.Preshared {
		return wgtypes.Key{}, nil
	}
	if s.preshared != nil {
		if k, ok := s.preshared(want.Key.Key()); ok && !k.IsZero() {
			return wgtypes.Key(k), nil
		}
	}
	if have.PresharedKey == (wgtypes.Key{}) {
		return wgtypes.Key{}, fmt.Errorf("peer %s: %w", want.ID, ErrNoPresharedKey)
	}
	return have.PresharedKey, nil
}

func (s situation) interval(want overlay.TunnelPeer) time.Duration {
	if want.Initiate || s.announce && !want.Preshared {
		return keepalive
	}
	return 0
}

// wantsEndpoint reports whether the planned endpoint must be set again: it is not the
// peer's present endpoint, and either the plan has changed or the session is dead, so that
// the peer's last address is useless.
func (s situation) wantsEndpoint(want overlay.TunnelPeer, have wgtypes.Peer) bool {
	if addrPort(have.Endpoint) == want.Endpoint {
		return false
	}
	if s.endpoints[want.Key.Key()] != want.Endpoint {
		return true
	}
	return s.now.Sub(have.LastHandshakeTime) > sessionEnd
}

// orphans returns the addresses that a remaining peer must lose and that no other peer
// gets.
func orphans(lane overlay.Tunnel, have map[keymgr.PublicKey]wgtypes.Peer, owners map[netip.Prefix]bool) []net.IPNet {
	var out []net.IPNet
	for _, want := range lane.Peers {
		for _, n := range have[want.Key.Key()].AllowedIPs {
			if !owners[prefix(n)] {
				out = append(out, n)
			}
		}
	}
	return out
}

// bury takes addresses away from the peers that have them. The protocol has no such
// request: one can only clear all addresses of a peer and set the rest again, and in that
// moment all packets to the peer are dropped. So bury gives the addresses to a peer that
// does not exist, and removes that peer.
func bury(addrs []net.IPNet) []wgtypes.PeerConfig {
	if len(addrs) == 0 {
		return nil
	}
	// The key is a hash, so nobody can have the private key that belongs to it.
	nobody := wgtypes.Key(sha256.Sum256([]byte("sealane: the peer that takes addresses away")))
	return []wgtypes.PeerConfig{{PublicKey: nobody, AllowedIPs: addrs}, {PublicKey: nobody, Remove: true}}
}

func ipNet(p netip.Prefix) net.IPNet {
	return net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

func prefix(n net.IPNet) netip.Prefix {
	a, _ := netip.AddrFromSlice(n.IP)
	bits, _ := n.Mask.Size()
	if a.Is4In6() && len(n.Mask) == net.IPv6len {
		bits -= 96
	}
	return netip.PrefixFrom(a.Unmap(), bits)
}

func prefixes(ns []net.IPNet) []netip.Prefix {
	out := make([]netip.Prefix, 0, len(ns))
	for _, n := range ns {
		out = append(out, prefix(n))
	}
	return out
}

func addrPort(u *net.UDPAddr) netip.AddrPort {
	if u == nil {
		return netip.AddrPort{}
	}
	a := u.AddrPort()
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port())
}
