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
	// keepalive is how often the node that starts the handshakes of a pair is heard
	// of, so that a session never sleeps: 25 s is what upstream recommends.
	keepalive = 25 * time.Second
	// sessionEnd is when a session is dead by the protocol (REJECT_AFTER_TIME).
	sessionEnd = 180 * time.Second
)

// situation is what diff has to know besides the plan and the device.
type situation struct {
	now time.Time
	// announce lets this node start all handshakes, its own part or not. Where keys
	// are preshared, whoever asked for the key starts, and nobody else.
	announce bool
	// preshared gives the preshared key with a peer; nil if there are none.
	preshared func(peer keymgr.PublicKey) (keymgr.PresharedKey, bool)
	// endpoints are those that were set by this process; a peer whose endpoint the
	// kernel has learned from an authenticated packet since is left where it is.
	endpoints map[keymgr.PublicKey]netip.AddrPort
}

// diff returns what has to be sent to the device so that its peers are as planned.
// The order matters: who gets addresses comes before who leaves.
func diff(lane overlay.Tunnel, have []wgtypes.Peer, s situation) ([]wgtypes.PeerConfig, error) {
	byKey := make(map[keymgr.PublicKey]wgtypes.Peer, len(have))
	for _, p := range have {
		byKey[keymgr.PublicKey(p.PublicKey)] = p
	}
	planned := make(map[keymgr.PublicKey]bool, len(lane.Peers))
	owners := map[netip.Prefix]bool{} // addresses that somebody is to have
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

// sharedKey returns the preshared key that the peer is to have, zero for none. A
// daemon that has just started finds them in the devices.
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

// wantsEndpoint says whether the planned endpoint has to be set again: it is not
// where the peer is now, and either the plan has changed or the session is dead, so
// that nobody can be heard from where the peer was last.
func (s situation) wantsEndpoint(want overlay.TunnelPeer, have wgtypes.Peer) bool {
	if addrPort(have.Endpoint) == want.Endpoint {
		return false
	}
	if s.endpoints[want.Key.Key()] != want.Endpoint {
		return true
	}
	return s.now.Sub(have.LastHandshakeTime) > sessionEnd
}

// orphans returns the addresses that a peer which stays must lose and that no
// other peer gets.
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

// bury takes addresses away from whoever has them. The protocol knows no such
// request: one can only clear a peer's addresses and set the rest again, and for
// that moment everything that is sent to the peer is dropped. So the addresses go
// to a peer that does not exist, and it goes.
func bury(addrs []net.IPNet) []wgtypes.PeerConfig {
	if len(addrs) == 0 {
		return nil
	}
	// A hash: nobody can have a private key that belongs to it.
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
