// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package netnsexec

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Dir is where namespaces have names, for runtimes as for ip-netns(8).
const Dir = "/var/run/netns"

// Make makes a network namespace of that name.
func Make(name string) (Netns, error) {
	path := filepath.Join(Dir, name)
	if err := os.MkdirAll(Dir, 0o755); err != nil {
		return "", err
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return "", err
	}
	if err := f.Close(); err != nil {
		return "", err
	}
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		done <- func() error {
			if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
				return err
			}
			return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
		}()
	}()
	if err := <-done; err != nil {
		return "", errors.Join(fmt.Errorf("make network namespace %s: %w", name, err), os.Remove(path))
	}
	return Netns(path), nil
}

// Remove removes the name, and with it the namespace if no process is in it. An empty
// path, or one that is gone, is no error.
func (n Netns) Remove() error {
	path := string(n)
	if path == "" {
		return nil
	}
	err := unix.Unmount(path, unix.MNT_DETACH)
	if err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("unmount %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}
