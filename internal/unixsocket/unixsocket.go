// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package unixsocket opens the sockets through which the node's own programs find a daemon.
package unixsocket

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
)

// maxPath is the longest path, in bytes, that fits into sockaddr_un.
const maxPath = 107

// Check returns an error if no socket is possible at path, and says why.
func Check(path string) error {
	if len(path) > maxPath {
		return fmt.Errorf("it has %d bytes, and a socket's path at most %d", len(path), maxPath)
	}
	if !filepath.IsAbs(path) || strings.ContainsRune(path, 0) {
		return errors.New("it must be an absolute path")
	}
	return nil
}

// Listen listens on a unix socket at path that only root can reach, and creates its
// directory. The socket replaces that of an older daemon in one step: clients find a socket
// at every moment. When the listener is closed the file stays, and refuses connections.
func Listen(path string) (net.Listener, error) {
	// Each socket has its own temporary name, because a daemon opens several at once in one
	// directory.
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := errors.Join(Check(path), Check(fresh)); err != nil {
		return nil, fmt.Errorf("listen on socket %q: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, fmt.Errorf("create directory of socket: %w", err)
	}
	if err := os.RemoveAll(fresh); err != nil {
		return nil, fmt.Errorf("remove remains of a socket: %w", err)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: fresh, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on socket: %w", err)
	}
	l.SetUnlinkOnClose(false) // else the older daemon would unlink the newer one's
	err = os.Chmod(fresh, 0o600)
	if err == nil {
		err = os.Rename(fresh, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("place socket %s: %w", path, err), l.Close(), os.Remove(fresh))
	}
	return l, nil
}
