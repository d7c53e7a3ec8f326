// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package wireguard

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"
	"sync"
	"time"

	"golang.zx2c4.com/wireguard/wgctrl"
	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/backend"
	"github.com/sealane/sealane/overlay/wireguard/process"
)

// devicePrefix begins the name of every WireGuard tunnel.
const devicePrefix = overlay.DevicePrefix + "wg"

// kernelKind is the kind of the kernel's own WireGuard devices.
const kernelKind = "wireguard"

// alias is what ip-link(8) shows for a tunnel.
const alias = "sealane lane, managed by sealaned"

// Options are what a Backend needs.
type Options struct {
	// Links belongs to the namespace of the tunnels; the Backend does not close it.
	Links *nl.Handle
	// Key returns the private key of one of this node's generations. Keys are never part of
	// a plan, because plans are shown and logged. Clean and Observe do not need it.
	Key func(generation uint64) (keymgr.PrivateKey, bool)
	// Preshared returns the preshared key for one of this node's generations and a peer's
	// key. If it returns false, a device keeps the preshared key that it has.
	Preshared func(own uint64, peer keymgr.PublicKey) (keymgr.PresharedKey, bool)
	// Socket is the path to the socket of the sealane-wireguard process, for kernels
	// without WireGuard.
	Socket string
	Logger *slog.Logger
}

// control is what the Backend uses of wgctrl.
type control interface {
	Device(name string) (*wgtypes.Device, error)
	ConfigureDevice(name string, cfg wgtypes.Config) error
}

// Backend makes WireGuard tunnels. It is safe for concurrent use.
type Backend struct {
	links   *nl.Handle
	key     func(generation uint64) (keymgr.PrivateKey, bool)
	shared  func(own uint64, peer keymgr.PublicKey) (keymgr.PresharedKey, bool)
	process process.Client
	log     *slog.Logger
	kernel  bool
	client  *wgctrl.Client
	ctl     control

	mu sync.Mutex // guards the fields below, and allows one Apply at a time
	// endpoints are those that this process has set, by device.
	endpoints map[string]map[keymgr.PublicKey]netip.AddrPort
	// fresh are the devices that were created and have had no peers since.
	fresh map[string]bool
}

var _ overlay.Backend = (*Backend)(nil)

// New probes the kernel and returns a Backend. It changes nothing.
func New(o Options) (*Backend, error) {
	kernel, err := o.Links.HasWireGuard()
	if err != nil {
		return nil, fmt.Errorf("probe the kernel for WireGuard: %w", err)
	}
	b := &Backend{
		links: o.Links, key: o.Key, shared: o.Preshared, process: process.Client{Socket: o.Socket}, log: o.Logger, kernel: kernel,
		endpoints: map[string]map[keymgr.PublicKey]netip.AddrPort{}, fresh: map[string]bool{},
	}
	// The client's sockets must belong to the Handle's namespace.
	err = o.Links.Do(func() error {
		b.client, err = wgctrl.New()
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("open WireGuard's configuration: %w", err)
	}
	b.ctl = b.client
	return b, nil
}

// Close releases what New opened; the tunnels stay.
func (b *Backend) Close() error { return b.client.Close() }

// Mode returns what serves WireGuard on this node.
func (b *Backend) Mode() backend.Type {
	if b.kernel {
		return backend.Kernel
	}
	return backend.UserSpace
}

// Watch reports when the tunnels must be applied again because the process that serves them
// in user space has started. With the kernel's WireGuard it never reports anything.
func (b *Backend) Watch(ctx context.Context) <-chan struct{} {
	if !b.kernel {
		return b.process.Watch(ctx)
	}
	quiet := make(chan struct{})
	context.AfterFunc(ctx, func() { close(quiet) })
	return quiet
}

// Apply makes the tunnels of the plan exist with their peers, and no others. A tunnel that
// fails does not stop the others.
func (b *Backend) Apply(ctx context.Context, p overlay.Plan) error {
	if p.Kind != overlay.WireGuard {
		return fmt.Errorf("apply plan of kind %q: %w", p.Kind, ErrKind)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for _, lane := range p.Tunnels {
		if err := b.applyLane(ctx, p, lane); err != nil {
			errs = append(errs, fmt.Errorf("lane %s: %w", lane.Device, err))
		}
	}
	links, err := b.devices()
	errs = append(errs, err)
	for _, l := range links {
		if _, wanted := p.Tunnel(l.Name); !wanted {
			b.log.Info("deleting a tunnel that is no longer planned", "device", l.Name)
			errs = append(errs, b.deleteLane(ctx, l.Name))
		}
	}
	return errors.Join(errs...)
}

// Remove implements overlay.Backend. A tunnel that fails does not stop the others.
func (b *Backend) Remove(peers map[string][]keymgr.PublicKey) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	var errs []error
	for device, keys := range peers {
		var gone []wgtypes.PeerConfig
		for _, k := range keys {
			delete(b.endpoints[device], k)
			gone = append(gone, wgtypes.PeerConfig{PublicKey: wgtypes.Key(k), Remove: true})
		}
		if err := b.ctl.ConfigureDevice(device, wgtypes.Config{Peers: gone}); err != nil && !isGone(err) {
			errs = append(errs, fmt.Errorf("lane %s: remove %d peers: %w", device, len(keys), err))
		}
	}
	return errors.Join(errs...)
}

func (b *Backend) applyLane(ctx context.Context, p overlay.Plan, lane overlay.Tunnel) error {
	for _, peer := range lane.Peers {
		if !peer.Key.Valid() {
			return fmt.Errorf("peer %s: %w", peer.ID, ErrUnverified)
		}
	}
	key, ok := b.key(lane.Own)
	if !ok {
		return fmt.Errorf("%w of generation %d", ErrNoKey, lane.Own)
	}
	dev, err := b.ensureDevice(ctx, p.MTU, lane, key)
	if err != nil {
		return err
	}
	t := nl.Tunnel{MTU: p.MTU, Alias: alias, Group: overlay.DeviceGroup, Addresses: p.Addresses}
	// The device must be up before it gets peers: switching a keepalive on starts no
	// handshake on a device that is down.
	if _, err := b.links.EnsureTunnel(lane.Device, t); err != nil {
		return err
	}
	if !b.fresh[lane.Device] || len(lane.Peers) == 0 {
		return b.configure(lane, dev, situation{})
	}
	// The peers may hold sessions with the previous device and would send into them for up
	// to 15 s. So initiate handshakes with all of them, even where the peer is the
	// designated initiator.
	if err := b.configure(lane, dev, situation{announce: true}); err != nil {
		return err
	}
	delete(b.fresh, lane.Device)
	if dev, err = b.ctl.Device(lane.Device); err != nil {
		return fmt.Errorf("read device: %w", err)
	}
	return b.configure(lane, dev, situation{})
}

// configure writes the difference between the planned tunnel and the device.
func (b *Backend) configure(lane overlay.Tunnel, dev *wgtypes.Device, s situation) error {
	s.now, s.endpoints = time.Now(), b.endpoints[lane.Device]
	if b.shared != nil {
		s.preshared = func(peer keymgr.PublicKey) (keymgr.PresharedKey, bool) { return b.shared(lane.Own, peer) }
	}
	// A key that one peer lacks does not stop the others from being configured.
	peers, lacking := diff(lane, dev.Peers, s)
	if len(peers) > 0 {
		if err := b.ctl.ConfigureDevice(lane.Device, wgtypes.Config{Peers: peers}); err != nil {
			return fmt.Errorf("configure peers: %w", err)
		}
		b.log.Debug("tunnel configured", "device", lane.Device, "changes", len(peers))
	}
	set := make(map[keymgr.PublicKey]netip.AddrPort, len(lane.Peers))
	for _, p := range lane.Peers {
		set[p.Key.Key()] = p.Endpoint
	}
	b.endpoints[lane.Device] = set
	return lacking
}

// ensureDevice returns the tunnel's device, with its key and port set.
func (b *Backend) ensureDevice(ctx context.Context, mtu int, lane overlay.Tunnel, key keymgr.PrivateKey) (*wgtypes.Device, error) {
	public, err := key.Public()
	if err != nil {
		return nil, err
	}
	dev, err := b.existing(ctx, lane.Device, public)
	if err != nil {
		return nil, err
	}
	if dev == nil {
		dev, err = b.create(ctx, mtu, lane)
	} else {
		err = b.tellMTU(ctx, mtu, lane)
	}
	if err != nil {
		return nil, err
	}
	cfg := wgtypes.Config{}
	if dev.PrivateKey == (wgtypes.Key{}) {
		k := wgtypes.Key(key)
		cfg.PrivateKey, b.fresh[lane.Device] = &k, true
		delete(b.endpoints, lane.Device)
	}
	if port := int(lane.Port); dev.ListenPort != port { // setting the same port would reopen the sockets
		cfg.ListenPort = &port
	}
	if cfg.PrivateKey != nil || cfg.ListenPort != nil {
		if err := b.ctl.ConfigureDevice(lane.Device, cfg); err != nil {
			return nil, fmt.Errorf("configure device: %w", err)
		}
	}
	return dev, nil
}

// existing returns the device if it exists and can be used, else nil. It deletes a device
// with another private key.
func (b *Backend) existing(ctx context.Context, name string, public keymgr.PublicKey) (*wgtypes.Device, error) {
	if _, err := b.links.LinkByName(name); errors.Is(err, nl.ErrNotFound) {
		// The process may not yet have noticed that somebody removed the device.
		return nil, b.deleteLane(ctx, name)
	}
	dev, err := b.ctl.Device(name)
	if isGone(err) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read device: %w", err)
	}
	if dev.PrivateKey == (wgtypes.Key{}) || keymgr.PublicKey(dev.PublicKey) == public {
		return dev, nil
	}
	b.log.Warn("device has another private key, creating it again", "device", name, "key", dev.PublicKey.String())
	return nil, b.deleteLane(ctx, name)
}

// isGone reports whether err means that no WireGuard serves the device. In user space that
// is also the case when the process has ended and left its socket behind.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, errConnRefused)
}

func (b *Backend) create(ctx context.Context, mtu int, lane overlay.Tunnel) (*wgtypes.Device, error) {
	var err error
	if b.kernel {
		// A device that has the name but is not a WireGuard device is a TUN device from a
		// time when the kernel had no WireGuard.
		if err = b.links.DeleteLink(lane.Device); err == nil {
			err = b.links.AddWireGuard(lane.Device, mtu)
		}
	} else {
		err = b.process.Ensure(ctx, process.Device{Name: lane.Device, MTU: mtu, Port: lane.Port})
	}
	if err != nil {
		return nil, err
	}
	dev, err := b.ctl.Device(lane.Device)
	if err != nil {
		return nil, fmt.Errorf("read new device: %w", err)
	}
	b.log.Info("tunnel created", "device", lane.Device, "mode", b.Mode(), "port", lane.Port, "generation", lane.Own)
	return dev, nil
}

// tellMTU tells the process the new MTU; the kernel's devices notice it themselves.
func (b *Backend) tellMTU(ctx context.Context, mtu int, lane overlay.Tunnel) error {
	l, err := b.links.LinkByName(lane.Device)
	if err != nil || l.Kind == kernelKind || l.MTU == mtu {
		return err
	}
	return b.process.Ensure(ctx, process.Device{Name: lane.Device, MTU: mtu, Port: lane.Port})
}

func (b *Backend) deleteLane(ctx context.Context, name string) error {
	delete(b.endpoints, name)
	delete(b.fresh, name)
	if !b.kernel {
		// Ask the process first, so that it keeps nothing of the device. Without the
		// process the device can still be deleted.
		err := b.process.Delete(ctx, name)
		if err != nil && !errors.Is(err, process.ErrUnavailable) {
			return err
		}
	}
	return b.links.DeleteLink(name)
}

// devices returns the devices with the name of a WireGuard tunnel.
func (b *Backend) devices() ([]nl.Link, error) {
	all, err := b.links.Links()
	var out []nl.Link
	for _, l := range all {
		if strings.HasPrefix(l.Name, devicePrefix) {
			out = append(out, l)
		}
	}
	return out, err
}

// Clean removes all WireGuard tunnels and what they left in the file system.
func (b *Backend) Clean() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	links, err := b.devices()
	errs := []error{err}
	for _, l := range links {
		errs = append(errs, b.deleteLane(context.Background(), l.Name))
	}
	return errors.Join(append(errs, removeSockets())...)
}
