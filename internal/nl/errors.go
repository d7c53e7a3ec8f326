// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"
	"fmt"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

var (
	// ErrNotFound means that a device, address, route, rule or namespace does not exist.
	ErrNotFound = errors.New("not found")
	// ErrExists means that the name or value is already taken.
	ErrExists = errors.New("already exists")
	// ErrUnsupported means that the running kernel does not have the feature.
	ErrUnsupported = errors.New("not supported by this kernel")
	// ErrInvalid means that the request itself is wrong; nothing was sent to the kernel.
	ErrInvalid = errors.New("invalid request")
)

// kernelError names the attempt and maps the kernel's answer to a sentinel. The original
// error stays in the chain, so errors.Is(err, unix.EPERM) works.
func kernelError(err error, format string, args ...any) error {
	if err == nil {
		return nil
	}
	what := fmt.Sprintf(format, args...)
	if sentinel := classify(err); sentinel != nil {
		return fmt.Errorf("%s: %w: %w", what, sentinel, err)
	}
	return fmt.Errorf("%s: %w", what, err)
}

func classify(err error) error {
	var noLink netlink.LinkNotFoundError
	switch {
	case errors.As(err, &noLink), errors.Is(err, unix.ENODEV), errors.Is(err, unix.ESRCH), errors.Is(err, os.ErrNotExist):
		return ErrNotFound
	case errors.Is(err, os.ErrExist):
		return ErrExists
	case errors.Is(err, unix.EOPNOTSUPP):
		return ErrUnsupported
	}
	return nil
}
