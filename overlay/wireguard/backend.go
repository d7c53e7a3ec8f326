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

// devicePrefix is of every WireGuard lane's name.
const devicePrefix = overlay.DevicePrefix + "wg"

// kernelKind is the kind of the kernel's own WireGuard devices.
const kernelKind = "wireguard"

// alias is what ip-link(8) shows of a lane.
const alias = "sealane lane, managed by sealaned"

// Options are what a Backend needs.
type Options struct {
	// Links is of the namespace that the lanes are in; the Backend does not close it.
	Links *nl.Handle
	// Key gives the private key of one of this node's generations. Keys never are in
	// a plan, which is shown and logged. It is not needed for Clean and Observe.
	Key func(generation uint64) (keymgr.PrivateKey, bool)
	// Preshared gives the preshared key for one of this node's generations and a
	// peer's key. Where it knows none, a device keeps the one it has.
	Preshared func(own uint64, peer keymgr.PublicKey) (keymgr.PresharedKey, bool)
	// Socket is that of the sealane-wireguard process, for kernels without WireGuard.
	Socket string
	Logger *slog.Logger
}

// control is what the Backend uses of wgctrl.
type control interface {
	Device(name string) (*wgtypes.Device, error)
	ConfigureDevice(name string, cfg wgtypes.Config) error
}

// Backend makes WireGuard lanes. It is safe for concurrent use.
type Backend struct {
	links   *nl.Handle
	key     func(generation uint64) (keymgr.PrivateKey, bool)
	shared  func(own uint64, peer keymgr.PublicKey) (keymgr.PresharedKey, bool)
	process process.Client
	log     *slog.Logger
	kernel  bool
	client  *wgctrl.Client
	ctl     control

	mu sync.Mutex // guards all below, and keeps two Applies apart
	// endpoints are those set by this process, by device.
	endpoints map[string]map[keymgr.PublicKey]netip.AddrPort
	// fresh are the devices that were made anew and have had no peers since.
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
	// Its sockets must be of the Handle's namespace.
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

// Close releases what New opened; the lanes stay.
func (b *Backend) Close() error { return b.client.Close() }

// Mode says who serves WireGuard on this node.
func (b *Backend) Mode() backend.Type {
	if b.kernel {
		return backend.Kernel
	}
	return backend.UserSpace
}

// Watch reports when lanes have to be applied again because the process that
// serves them in user space has started. In the kernel nothing is ever reported.
func (b *Backend) Watch(ctx context.Context) <-chan struct{} {
	if !b.kernel {
		return b.process.Watch(ctx)
	}
	quiet := make(chan struct{})
	context.AfterFunc(ctx, func() { close(quiet) })
	return quiet
}

// Apply makes the lanes of the plan exist with their peers, and no others. One
// lane that fails does not keep the others from being done.
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
			b.log.Info("lane not planned any more, deleting it", "device", l.Name)
			errs = append(errs, b.deleteLane(ctx, l.Name))
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
	// Up before it gets peers: a keepalive that is switched on for a device that is
	// down starts no handshake.
	if _, err := b.links.EnsureTunnel(lane.Device, t); err != nil {
		return err
	}
	if !b.fresh[lane.Device] || len(lane.Peers) == 0 {
		return b.configure(lane, dev, situation{})
	}
	// The peers may hold sessions with the device that was before, and would send
	// into them for up to 15 s: call them all, whoever's part it is.
	if err := b.configure(lane, dev, situation{announce: true}); err != nil {
		return err
	}
	delete(b.fresh, lane.Device)
	if dev, err = b.ctl.Device(lane.Device); err != nil {
		return fmt.Errorf("read device: %w", err)
	}
	return b.configure(lane, dev, situation{})
}

// configure writes the difference between the lane and the device.
func (b *Backend) configure(lane overlay.Tunnel, dev *wgtypes.Device, s situation) error {
	s.now, s.endpoints = time.Now(), b.endpoints[lane.Device]
	if b.shared != nil {
		s.preshared = func(peer keymgr.PublicKey) (keymgr.PresharedKey, bool) { return b.shared(lane.Own, peer) }
	}
	// What one peer lacks keeps no other peer from being done.
	peers, lacking := diff(lane, dev.Peers, s)
	if len(peers) > 0 {
		if err := b.ctl.ConfigureDevice(lane.Device, wgtypes.Config{Peers: peers}); err != nil {
			return fmt.Errorf("configure peers: %w", err)
		}
		b.log.Debug("lane configured", "device", lane.Device, "changes", len(peers))
	}
	set := make(map[keymgr.PublicKey]netip.AddrPort, len(lane.Peers))
	for _, p := range lane.Peers {
		set[p.Key.Key()] = p.Endpoint
	}
	b.endpoints[lane.Device] = set
	return lacking
}

// ensureDevice returns the lane's device, with its key and port.
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
	if port := int(lane.Port); dev.ListenPort != port { // setting the same one would re-open the sockets
		cfg.ListenPort = &port
	}
	if cfg.PrivateKey != nil || cfg.ListenPort != nil {
		if err := b.ctl.ConfigureDevice(lane.Device, cfg); err != nil {
			return nil, fmt.Errorf("configure device: %w", err)
		}
	}
	return dev, nil
}

// existing returns the device if it is there and may be used, else nil. One with
// another private key is taken away.
func (b *Backend) existing(ctx context.Context, name string, public keymgr.PublicKey) (*wgtypes.Device, error) {
	if _, err := b.links.LinkByName(name); errors.Is(err, nl.ErrNotFound) {
		// The process may not have noticed yet that somebody took the device away.
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
	b.log.Warn("device has another key, making it anew", "device", name, "key", dev.PublicKey.String())
	return nil, b.deleteLane(ctx, name)
}

// isGone says that no WireGuard answers for the device. In user space that also
// is so when the process has ended and left its socket behind.
func isGone(err error) bool {
	return errors.Is(err, os.ErrNotExist) || errors.Is(err, errConnRefused)
}

func (b *Backend) create(ctx context.Context, mtu int, lane overlay.Tunnel) (*wgtypes.Device, error) {
	var err error
	if b.kernel {
		// What has the name and is no WireGuard device is a TUN device of a time
		// when the kernel had none.
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
	b.log.Info("lane created", "device", lane.Device, "mode", b.Mode(), "port", lane.Port, "generation", lane.Own)
	return dev, nil
}

// tellMTU lets the process know of a new MTU; the kernel's devices see it themselves.
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
		// Its own way first, so that nothing of it stays in the process. Without the
		// process the device can still be taken away.
		err := b.process.Delete(ctx, name)
		if err != nil && !errors.Is(err, process.ErrUnavailable) {
			return err
		}
	}
	return b.links.DeleteLink(name)
}

// devices returns the devices that have a WireGuard lane's name.
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

// Clean removes all WireGuard lanes and what they left in the file system.
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
