// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package userspace

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
	"golang.zx2c4.com/wireguard/tun"
)

const tunPath = "/dev/net/tun"

// tunnel is upstream's TUN device without its netlink listener, which ends the device for
// good when the kernel could not report all changes on a busy node. The Engine reports up
// and MTU instead; it knows them first.
type tunnel struct {
	tun.Device

	mu     sync.Mutex // guards the fields below
	closed bool
	events chan tun.Event
}

// openTunnel attaches to the TUN device of that name, creates it if it does not exist, and
// makes it persistent.
func openTunnel(name string) (*tunnel, error) {
	fd, err := unix.Open(tunPath, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", tunPath, err)
	}
	if err := attach(fd, name); err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	t, _, err := tun.CreateUnmonitoredTUNFromFD(fd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("prepare TUN device: %w", err), unix.Close(fd))
	}
	return &tunnel{Device: t, events: make(chan tun.Event, 8)}, nil
}

func attach(fd int, name string) error {
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return fmt.Errorf("name TUN device %q: %w", name, err)
	}
	// VNET_HDR allows segmentation offload in both directions.
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return fmt.Errorf("attach to TUN device %s: %w", name, err)
	}
	if err := unix.IoctlSetInt(fd, unix.TUNSETPERSIST, 1); err != nil {
		return fmt.Errorf("make TUN device %s persistent: %w", name, err)
	}
	return nil
}

// Events returns the Engine's events in place of the kernel's.
func (t *tunnel) Events() <-chan tun.Event { return t.events }

// notify tells the device of an event. It drops an event that does not fit: the reader will
// look at the present state when it handles the earlier ones.
func (t *tunnel) notify(e tun.Event) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return
	}
	select {
	case t.events <- e:
	default:
	}
}

// Close detaches from the TUN device, which stays.
func (t *tunnel) Close() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.closed {
		return nil
	}
	t.closed = true
	close(t.events)
	return t.Device.Close()
}

// release lets the TUN device end with its last user.
func (t *tunnel) release() error {
	raw, err := t.File().SyscallConn()
	if err != nil {
		return err
	}
	var ioctlErr error
	err = raw.Control(func(fd uintptr) { ioctlErr = unix.IoctlSetInt(int(fd), unix.TUNSETPERSIST, 0) })
	if err = errors.Join(err, ioctlErr); errors.Is(err, os.ErrClosed) {
		return nil
	}
	return err
}

// remove releases and closes a tunnel that has not become a device.
func (t *tunnel) remove() error { return errors.Join(t.release(), t.Close()) }
