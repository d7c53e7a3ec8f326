// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
)

// Listen listens on a unix socket at path that only root can reach, and makes its
// directory. The socket replaces that of an older daemon in one step: there is no
// moment at which a plugin finds none. It stays when the listener is closed, and
// refuses connections then, which a Client takes for ErrUnreachable.
func Listen(path string) (net.Listener, error) {
	// Of its own for each socket: a daemon opens several at once in one directory.
	fresh := filepath.Join(filepath.Dir(path), "."+filepath.Base(path))
	if err := errors.Join(validSocket(path), validSocket(fresh)); err != nil {
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
