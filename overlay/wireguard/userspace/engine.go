// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package userspace

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"golang.zx2c4.com/wireguard/conn"
	"golang.zx2c4.com/wireguard/device"
	"golang.zx2c4.com/wireguard/tun"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay/wireguard/process"
)

// queue is how many packets the device holds while this process gets no CPU: one second of
// 4,000 packets/s. The kernel's default of 500 overflows after an eighth of a second.
// Nothing else holds these packets, because a pod's socket is no longer charged for what
// has left the pod.
const queue = 4096

// Engine holds the devices of this process.
type Engine struct {
	handle *nl.Handle
	log    *slog.Logger

	mu    sync.Mutex
	lanes map[string]*lane
}

// lane is one running device.
type lane struct {
	name string
	port uint16
	tun  *tunnel
	dev  *device.Device
	uapi *configSocket
}

// New returns an Engine without devices. The handle must belong to the namespace of the
// process, because the process opens its sockets there.
func New(h *nl.Handle, log *slog.Logger) *Engine {
	return &Engine{handle: h, log: log, lanes: map[string]*lane{}}
}

// Ensure makes the device exist and run. A running device keeps everything but its MTU.
func (e *Engine) Ensure(d process.Device) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l, ok := e.runningLocked(d.Name); ok {
		return e.setMTU(l, d.MTU)
	}
	l, err := e.start(d)
	if err != nil {
		return fmt.Errorf("start %s: %w", d.Name, err)
	}
	e.lanes[d.Name] = l
	e.log.Info("device started", "device", d.Name, "mtu", d.MTU, "port", d.Port)
	return nil
}

// runningLocked returns the lane if it runs. It clears away one that stopped because
// somebody removed its TUN device or its socket.
func (e *Engine) runningLocked(name string) (*lane, bool) {
	l, ok := e.lanes[name]
	if !ok {
		return nil, false
	}
	select {
	case <-l.dev.Wait():
	case <-l.uapi.done:
	default:
		return l, true
	}
	e.log.Warn("device stopped unexpectedly, clearing it away", "device", name)
	l.close()
	delete(e.lanes, name)
	return nil, false
}

func (e *Engine) start(d process.Device) (*lane, error) {
	t, err := openTunnel(d.Name)
	if err != nil {
		return nil, err
	}
	l := &lane{name: d.Name, port: d.Port, tun: t}
	if err := errors.Join(e.setQueue(l), e.setMTU(l, d.MTU)); err != nil {
		return nil, errors.Join(err, t.remove())
	}
	l.dev = device.NewDevice(t, conn.NewDefaultBind(), logger(e.log, d.Name))
	// The port comes first: going up opens the sockets.
	err = l.dev.IpcSet(fmt.Sprintf("listen_port=%d\n", d.Port))
	if err == nil {
		err = l.dev.Up()
	}
	if err == nil {
		l.uapi, err = serveConfig(d.Name, l.dev)
	}
	if err != nil {
		l.dev.Close()
		return nil, err
	}
	return l, nil
}

func (e *Engine) setQueue(l *lane) error {
	link, err := e.handle.LinkByName(l.name)
	if err != nil {
		return err
	}
	return e.handle.SetLink(link.Index, nl.LinkSettings{Queue: queue})
}

func (e *Engine) setMTU(l *lane, mtu int) error {
	link, err := e.handle.LinkByName(l.name)
	if err != nil {
		return err
	}
	if link.MTU != mtu {
		if err := e.handle.SetLink(link.Index, nl.LinkSettings{MTU: mtu}); err != nil {
			return err
		}
		l.tun.notify(tun.EventMTUUpdate)
	}
	return nil
}

// Delete stops the device and removes it; a missing device is no error.
func (e *Engine) Delete(name string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l, ok := e.lanes[name]; ok {
		delete(e.lanes, name)
		err := l.tun.release()
		l.close()
		if err != nil {
			e.log.Warn("cannot release device", "device", name, "error", err)
		}
	}
	// This also removes a device that an earlier process left.
	return e.handle.DeleteLink(name)
}

// List returns the running devices, sorted by name.
func (e *Engine) List() []process.Device {
	e.mu.Lock()
	defer e.mu.Unlock()
	var out []process.Device
	for name := range e.lanes {
		l, ok := e.runningLocked(name)
		if !ok {
			continue
		}
		mtu, err := l.tun.MTU()
		if err != nil {
			e.log.Warn("cannot read mtu of device", "device", name, "error", err)
		}
		out = append(out, process.Device{Name: name, MTU: mtu, Port: l.port})
	}
	slices.SortFunc(out, func(a, b process.Device) int { return strings.Compare(a.Name, b.Name) })
	return out
}

// Close stops all devices. Their TUN devices stay, and drop what is sent to them.
func (e *Engine) Close() {
	e.mu.Lock()
	defer e.mu.Unlock()
	for name, l := range e.lanes {
		l.close()
		delete(e.lanes, name)
	}
}

// Remove stops all devices and removes them.
func (e *Engine) Remove() error {
	var errs []error
	for _, d := range e.List() {
		errs = append(errs, e.Delete(d.Name))
	}
	return errors.Join(errs...)
}

func (l *lane) close() {
	l.uapi.close()
	l.dev.Close()
}
