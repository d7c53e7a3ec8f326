// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package wireguard

import (
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"
)

// fakeDevice does to its peers what WireGuard does, one request after the other: an address
// has one owner on a device, and giving it to a peer takes it from another. It fails the
// test when a request breaks a rule that protects sessions.
type fakeDevice struct {
	t     *testing.T
	dev   wgtypes.Device
	calls int
	// step is called after each single change, so that a test can check the moments in
	// between.
	step func()
	// poked counts the handshakes that were started, by peer.
	poked map[wgtypes.Key]int
}

func newFake(t *testing.T) *fakeDevice {
	t.Helper()
	return &fakeDevice{t: t, step: func() {}, poked: map[wgtypes.Key]int{}}
}

func (f *fakeDevice) Device(name string) (*wgtypes.Device, error) {
	if f.dev.Name != name {
		return nil, os.ErrNotExist
	}
	d := f.dev
	d.Peers = slices.Clone(f.dev.Peers)
	for i := range d.Peers {
		d.Peers[i].AllowedIPs = slices.Clone(d.Peers[i].AllowedIPs)
	}
	return &d, nil
}

func (f *fakeDevice) ConfigureDevice(name string, cfg wgtypes.Config) error {
	if f.dev.Name != name {
		return os.ErrNotExist
	}
	f.calls++
	if cfg.PrivateKey != nil {
		if f.dev.PrivateKey != (wgtypes.Key{}) && f.dev.PrivateKey != *cfg.PrivateKey {
			f.t.Error("a live device got another private key")
		}
		f.dev.PrivateKey, f.dev.PublicKey = *cfg.PrivateKey, cfg.PrivateKey.PublicKey()
	}
	if cfg.ListenPort != nil {
		f.dev.ListenPort = *cfg.ListenPort
	}
	if cfg.ReplacePeers {
		f.t.Error("all peers were thrown away")
	}
	for _, p := range cfg.Peers {
		f.configure(p)
		f.step()
	}
	return nil
}

func (f *fakeDevice) configure(c wgtypes.PeerConfig) {
	i := slices.IndexFunc(f.dev.Peers, func(p wgtypes.Peer) bool { return p.PublicKey == c.PublicKey })
	if c.Remove {
		if i >= 0 {
			f.dev.Peers = slices.Delete(f.dev.Peers, i, i+1)
		}
		return
	}
	if i < 0 {
		if c.UpdateOnly {
			return
		}
		f.dev.Peers = append(f.dev.Peers, wgtypes.Peer{PublicKey: c.PublicKey})
		i = len(f.dev.Peers) - 1
	}
	if c.PresharedKey != nil {
		f.dev.Peers[i].PresharedKey = *c.PresharedKey
	}
	if c.Endpoint != nil {
		f.dev.Peers[i].Endpoint = c.Endpoint
	}
	if k := c.PersistentKeepaliveInterval; k != nil {
		if f.dev.Peers[i].PersistentKeepaliveInterval == 0 && *k != 0 {
			f.poked[c.PublicKey]++
		}
		f.dev.Peers[i].PersistentKeepaliveInterval = *k
	}
	if c.ReplaceAllowedIPs {
		f.dev.Peers[i].AllowedIPs = nil
		f.step()
	}
	for _, n := range c.AllowedIPs {
		f.take(prefix(n))
		f.dev.Peers[i].AllowedIPs = append(f.dev.Peers[i].AllowedIPs, n)
	}
}

// take removes an address from its owner.
func (f *fakeDevice) take(p netip.Prefix) {
	for i := range f.dev.Peers {
		ips := f.dev.Peers[i].AllowedIPs
		for j := range ips {
			if prefix(ips[j]) == p {
				f.dev.Peers[i].AllowedIPs = slices.Delete(slices.Clone(ips), j, j+1)
				break
			}
		}
	}
}

// owner returns the peer that has exactly that address.
func (f *fakeDevice) owner(p netip.Prefix) (wgtypes.Key, bool) {
	for _, peer := range f.dev.Peers {
		if slices.Contains(prefixes(peer.AllowedIPs), p) {
			return peer.PublicKey, true
		}
	}
	return wgtypes.Key{}, false
}

// handshake simulates an authenticated packet from the peer, sent from an address of the
// peer's choice.
func (f *fakeDevice) handshake(key wgtypes.Key, from netip.AddrPort, at time.Time) {
	for i := range f.dev.Peers {
		if f.dev.Peers[i].PublicKey == key {
			f.dev.Peers[i].LastHandshakeTime = at
			f.dev.Peers[i].Endpoint = udp(from)
		}
	}
}
