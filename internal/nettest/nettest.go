// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package nettest gives tests network namespaces of their own, wires between them, and one
// gate for tests that need root.
//
// A privileged test is named TestPrivileged… and begins with Privileged(t). Everything that
// it creates through this package is removed at its end, even if it fails.
package nettest

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nl"
)

// RequireEnv names the environment variable that, set to 1, turns the skip of
// privileged tests into a failure, so that a run that must have them cannot lose them.
const RequireEnv = "SEALANE_PRIVILEGED"

// namespaceDir is where ip-netns(8) keeps its namespaces, so that a person can inspect them
// while a test runs.
const namespaceDir = "/var/run/netns"

// Privileged skips the test without root, or fails it if RequireEnv is set.
func Privileged(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	if os.Getenv(RequireEnv) == "1" {
		t.Fatalf("%s=1, but the test does not run as root", RequireEnv)
	}
	t.Skip("needs root")
}

// NS is a network namespace that lives as long as the test. Its loopback is up.
type NS struct {
	Name string // as ip-netns(8) shows it
	Path string // for nl.OpenAt and CNI_NETNS
	t    testing.TB
	h    *nl.Handle
	// mounts is a mount namespace, if the test asked for one.
	mounts *os.File
}

// NewNS makes a network namespace and removes it with everything in it at the end
// of the test.
func NewNS(t testing.TB) *NS {
	t.Helper()
	name := "sltest-" + suffix(t)
	n := &NS{Name: name, Path: filepath.Join(namespaceDir, name), t: t}
	if err := os.MkdirAll(namespaceDir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := onThread(func() error { return createNamed(n.Path) }); err != nil {
		t.Fatalf("create namespace: %v", err)
	}
	t.Cleanup(func() {
		if err := removeNamed(n.Path); err != nil {
			t.Errorf("remove namespace: %v", err)
		}
	})
	h, err := nl.OpenAt(n.Path)
	if err != nil {
		t.Fatal(err)
	}
	n.h = h
	t.Cleanup(func() { _ = h.Close() })
	lo, err := h.LinkByName("lo")
	if err == nil {
		err = h.SetLink(lo.Index, nl.LinkSettings{State: nl.Up})
	}
	if err != nil {
		t.Fatal(err)
	}
	return n
}

// createNamed moves the calling thread into a new namespace and pins it at path.
func createNamed(path string) error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("unshare: %w", err)
	}
	f, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL, 0o444)
	if err != nil {
		return err
	}
	if err := f.Close(); err != nil {
		return err
	}
	return unix.Mount("/proc/thread-self/ns/net", path, "none", unix.MS_BIND, "")
}

func removeNamed(path string) error {
	// Detached: a forgotten process in the namespace must not keep the name alive.
	if err := unix.Unmount(path, unix.MNT_DETACH); err != nil && err != unix.EINVAL && err != unix.ENOENT {
		return err
	}
	if err := os.Remove(path); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

// Remove removes the namespace before the test ends, as a container runtime does.
func (n *NS) Remove() {
	n.t.Helper()
	if err := removeNamed(n.Path); err != nil {
		n.t.Fatal(err)
	}
}

// Handle returns the netlink handle of the namespace. The test must not close it.
func (n *NS) Handle() *nl.Handle { return n.h }

// Do runs f in the namespace, on a thread that is discarded afterwards. Sockets that f
// opens, and commands that it starts, are in the namespace. f must not call t.Fatal,
// because it runs on another goroutine.
func (n *NS) Do(f func()) {
	n.t.Helper()
	if err := n.h.Do(func() error {
		if err := n.enterMounts(); err != nil {
			return err
		}
		f()
		return nil
	}); err != nil {
		n.t.Fatal(err)
	}
}

// Isolate gives the namespace its own, initially empty file systems at the directories, so
// that several nodes on one machine can use the same fixed path. Do and commands see them
// from then on.
func (n *NS) Isolate(dirs ...string) {
	n.t.Helper()
	err := onThread(func() error {
		if err := unix.Unshare(unix.CLONE_FS | unix.CLONE_NEWNS); err != nil {
			return fmt.Errorf("unshare: %w", err)
		}
		if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
			return fmt.Errorf("make mounts private: %w", err)
		}
		for _, dir := range dirs {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				return err
			}
			if err := unix.Mount("nettest", dir, "tmpfs", 0, ""); err != nil {
				return fmt.Errorf("mount %s: %w", dir, err)
			}
		}
		f, err := os.Open("/proc/thread-self/ns/mnt")
		n.mounts = f
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = n.mounts.Close() })
}

// enterMounts moves the calling thread, which must be discarded afterwards.
func (n *NS) enterMounts() error {
	if n.mounts == nil {
		return nil
	}
	if err := unix.Unshare(unix.CLONE_FS); err != nil { // a shared root cannot be moved
		return err
	}
	return unix.Setns(int(n.mounts.Fd()), unix.CLONE_NEWNS)
}

// Command returns a command that will run in the namespace.
func (n *NS) Command(name string, args ...string) *exec.Cmd {
	enter := []string{"--net=" + n.Path}
	if n.mounts != nil {
		enter = append(enter, "--mount=/proc/self/fd/3")
	}
	cmd := exec.Command("nsenter", append(append(enter, name), args...)...)
	if n.mounts != nil {
		cmd.ExtraFiles = []*os.File{n.mounts}
	}
	return cmd
}

// Run runs a command in the namespace and returns its output; it fails the test if the
// command fails.
func (n *NS) Run(name string, args ...string) string {
	n.t.Helper()
	out, err := n.Try(name, args...)
	if err != nil {
		n.t.Fatalf("%s: %s %v: %v\n%s", n.Name, name, args, err, out)
	}
	return out
}

// Try is Run for commands that may fail.
func (n *NS) Try(name string, args ...string) (string, error) {
	cmd := n.Command(name, args...)
	var buf bytes.Buffer
	cmd.Stdout, cmd.Stderr = &buf, &buf
	err := cmd.Run()
	return buf.String(), err
}

// End is one end of a wire.
type End struct {
	NS        *NS
	Name      string // device name; empty means a generated one
	Addresses []netip.Prefix
}

// Wire connects two namespaces by a veth pair, gives each end its addresses and
// sets both up. It returns the two devices.
func Wire(t testing.TB, a, b End) (nl.Link, nl.Link) {
	t.Helper()
	for _, e := range []*End{&a, &b} {
		if e.Name == "" {
			e.Name = "t" + suffix(t)
		}
	}
	if _, err := a.NS.h.AddVeth(nl.Veth{Name: a.Name, PeerName: b.Name, PeerNetns: b.NS.Path}); err != nil {
		t.Fatal(err)
	}
	return a.up(t), b.up(t)
}

func (e End) up(t testing.TB) nl.Link {
	t.Helper()
	l, err := e.NS.h.LinkByName(e.Name)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range e.Addresses {
		if err := e.NS.h.EnsureAddress(l.Index, p); err != nil {
			t.Fatal(err)
		}
	}
	if err := e.NS.h.SetLink(l.Index, nl.LinkSettings{State: nl.Up}); err != nil {
		t.Fatal(err)
	}
	return l
}

// onThread runs f on a thread that is discarded afterwards.
func onThread(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		done <- f()
	}()
	return <-done
}

func suffix(t testing.TB) string {
	t.Helper()
	b := make([]byte, 4)
	if _, err := rand.Read(b); err != nil {
		t.Fatal(err)
	}
	return hex.EncodeToString(b)
}

// Current reports whether the calling thread is in the namespace.
func (n *NS) Current() (bool, error) {
	here, err := netns.Get()
	if err != nil {
		return false, err
	}
	defer func() { _ = here.Close() }()
	there, err := netns.GetFromPath(n.Path)
	if err != nil {
		return false, err
	}
	defer func() { _ = there.Close() }()
	return here.Equal(there), nil
}
