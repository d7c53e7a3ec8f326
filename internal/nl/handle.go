// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"

	"github.com/vishvananda/netlink"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// dumpAttempts bounds how often an interrupted dump is repeated. A dump is
// interrupted when the table changed while it was read (NLM_F_DUMP_INTR).
const dumpAttempts = 20

// Handle works in one network namespace, whatever thread or namespace the caller is in.
type Handle struct {
	ns netns.NsHandle
	h  *netlink.Handle
}

// Open returns a Handle for the network namespace of the calling thread.
func Open() (*Handle, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return OpenAt("/proc/thread-self/ns/net")
}

// OpenAt returns a Handle for the network namespace at path, for example
// /var/run/netns/x or /proc/1/ns/net. The error is ErrNotFound when the path is
// gone or no longer a namespace (a bind mount that was removed leaves a plain file).
func OpenAt(path string) (*Handle, error) {
	ns, err := openNamespace(path)
	if err != nil {
		return nil, err
	}
	h, err := netlink.NewHandleAt(ns, unix.NETLINK_ROUTE)
	if err != nil {
		_ = ns.Close()
		return nil, kernelError(err, "open netlink socket in %s", path)
	}
	return &Handle{ns: ns, h: h}, nil
}

func openNamespace(path string) (netns.NsHandle, error) {
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOTDIR) {
		err = os.ErrNotExist
	}
	if err != nil {
		return -1, kernelError(err, "open network namespace %s", path)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		_ = unix.Close(fd)
		return -1, kernelError(err, "stat network namespace %s", path)
	}
	if fs.Type != unix.NSFS_MAGIC {
		_ = unix.Close(fd)
		return -1, fmt.Errorf("open network namespace %s: %w: not a namespace", path, ErrNotFound)
	}
	return netns.NsHandle(fd), nil
}

// Close releases the sockets and the namespace. The Handle must not be used after it.
func (h *Handle) Close() error {
	h.h.Close()
	return h.ns.Close()
}

// Do runs f on a separate thread in the Handle's namespace, and waits for it. The thread is
// discarded afterwards, so f may change anything about it. Sockets that f opens stay in the
// namespace.
func (h *Handle) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked: the runtime ends it with the goroutine, and no
		// other goroutine can ever run on a thread in a foreign namespace.
		runtime.LockOSThread()
		if err := netns.Set(h.ns); err != nil {
			done <- kernelError(err, "enter network namespace")
			return
		}
		done <- f()
	}()
	return <-done
}

// Identity returns a number that is equal for two Handles if and only if they belong to the
// same network namespace.
func (h *Handle) Identity() (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(h.ns), &st); err != nil {
		return 0, kernelError(err, "stat network namespace")
	}
	return st.Ino, nil
}

// dump repeats list until the kernel says that nothing changed while it was read.
func dump[T any](list func() ([]T, error)) ([]T, error) {
	var (
		out []T
		err error
	)
	for range dumpAttempts {
		if out, err = list(); !errors.Is(err, netlink.ErrDumpInterrupted) {
			return out, err
		}
	}
	return nil, err
}

func toIPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// toPrefix is the inverse of toIPNet; nil becomes the zero Prefix.
func toPrefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(toAddr(n.IP), ones)
}

func toAddr(ip net.IP) netip.Addr {
	a, _ := netip.AddrFromSlice(ip)
	return a.Unmap()
}

func family(a netip.Addr) int {
	if a.Is4() {
		return unix.AF_INET
	}
	return unix.AF_INET6
}
