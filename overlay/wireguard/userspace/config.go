// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package userspace

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"

	"golang.zx2c4.com/wireguard/device"
)

// configDirectory is where wg(8) and wgctrl look for WireGuard devices in user space.
const configDirectory = "/var/run/wireguard"

// configSocket serves WireGuard's configuration protocol for one device. A process that can
// open it can read the private key, so only root may.
type configSocket struct {
	ln   net.Listener
	done chan struct{} // closed when it no longer serves
}

func serveConfig(name string, dev *device.Device) (*configSocket, error) {
	if err := os.MkdirAll(configDirectory, 0o700); err != nil {
		return nil, fmt.Errorf("create %s: %w", configDirectory, err)
	}
	path := filepath.Join(configDirectory, name+".sock")
	// No other process can be serving it: only one can attach to the TUN device.
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove old socket: %w", err)
	}
	ln, err := net.Listen("unix", path)
	if err != nil {
		return nil, fmt.Errorf("listen: %w", err)
	}
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("protect %s: %w", path, err), ln.Close())
	}
	s := &configSocket{ln: ln, done: make(chan struct{})}
	go s.serve(dev)
	return s, nil
}

func (s *configSocket) serve(dev *device.Device) {
	defer close(s.done)
	for {
		c, err := s.ln.Accept()
		if err != nil {
			return
		}
		go dev.IpcHandle(c) // returns when the connection ends
	}
}

// close ends the socket, which removes its file.
func (s *configSocket) close() {
	_ = s.ln.Close() // an error means that it is closed already
	<-s.done
}
