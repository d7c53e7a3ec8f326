// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Sysctl reads a network setting of the namespace. The name is the path below
// /proc/sys, with slashes, because device names may hold dots:
// "net/ipv4/conf/eth0.5/rp_filter". The error is ErrNotFound if there is none.
func (h *Handle) Sysctl(name string) (string, error) {
	path, err := sysctlPath(name)
	if err != nil {
		return "", err
	}
	var raw []byte
	err = h.Do(func() error {
		raw, err = os.ReadFile(path)
		return kernelError(err, "read sysctl %s", name)
	})
	return strings.TrimSpace(string(raw)), err
}

// SetSysctl sets a network setting of the namespace and reports whether it had another
// value before. It does not write a value that is already set.
func (h *Handle) SetSysctl(name, value string) (changed bool, err error) {
	old, err := h.Sysctl(name)
	if err != nil {
		return false, err
	}
	if old == value {
		return false, nil
	}
	path, err := sysctlPath(name)
	if err != nil {
		return false, err
	}
	err = h.Do(func() error {
		f, err := os.OpenFile(path, os.O_WRONLY, 0)
		if err != nil {
			return kernelError(err, "write sysctl %s", name)
		}
		_, err = f.WriteString(value)
		return kernelError(errors.Join(err, f.Close()), "write sysctl %s=%s", name, value)
	})
	return err == nil, err
}

// sysctlPath refuses a setting that does not belong to a network namespace: writing it
// would change the whole machine from inside what looks like a namespace.
func sysctlPath(name string) (string, error) {
	if !strings.HasPrefix(name, "net/") || filepath.Clean(name) != name {
		return "", fmt.Errorf("sysctl %q: %w: want net/…, with slashes", name, ErrInvalid)
	}
	return filepath.Join("/proc/sys", name), nil
}
