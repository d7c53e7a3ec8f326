// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package machine

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/test/lab/internal/cgroup"
)

// Directories whose content must be on a real disk: an overlay cannot hold another
// overlay's upper layer, and etcd wants its file to be mappable.
var realDisk = []string{"var/lib/kubelet", "var/lib/containerd", "var/lib/etcd", "var/log/pods"}

// Settings of the whole machine that kubelet wants and would write. It leaves
// them alone where they read right already, so a node sees files that do.
var pretended = map[string]string{
	"proc/sys/vm/overcommit_memory":      "1\n",
	"proc/sys/vm/panic_on_oom":           "0\n",
	"proc/sys/kernel/panic":              "10\n",
	"proc/sys/kernel/panic_on_oops":      "1\n",
	"proc/sys/kernel/keys/root_maxkeys":  "1000000\n",
	"proc/sys/kernel/keys/root_maxbytes": "25000000\n",
}

// mounter collects the first error of a row of mounts.
type mounter struct{ err error }

func (m *mounter) do(source, target, fstype string, flags uintptr, data string) {
	if m.err != nil {
		return
	}
	if err := os.MkdirAll(target, 0o755); err != nil {
		m.err = err
		return
	}
	m.onto(source, target, fstype, flags, data)
}

func (m *mounter) onto(source, target, fstype string, flags uintptr, data string) {
	if m.err != nil {
		return
	}
	if err := unix.Mount(source, target, fstype, flags, data); err != nil {
		m.err = fmt.Errorf("mount %s %s: %w", fstype, target, err)
	}
}

func (m *mounter) memory(target, mode string) { m.do("tmpfs", target, "tmpfs", 0, "mode="+mode) }

func (m *mounter) bind(source, target string) { m.do(source, target, "", unix.MS_BIND, "") }

func (m *mounter) bindReadOnly(source, target string) {
	m.bind(source, target)
	m.onto("", target, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, "")
}

func (m *mounter) mkdir(dirs ...string) {
	for _, dir := range dirs {
		if m.err == nil {
			m.err = os.MkdirAll(dir, 0o755)
		}
	}
}

func (m *mounter) write(path, content string) {
	if m.err == nil {
		_ = os.Remove(path) // may be a link to a file of the real machine
		m.err = os.WriteFile(path, []byte(content), 0o644)
	}
}

// buildRoot gives the process's mount namespace a root of its own: the machine's, with
// every write kept in memory, and with the parts that make a node separate.
func buildRoot(spec Spec, tree cgroup.Tree) error {
	m := &mounter{}
	m.onto("", "/", "", unix.MS_REC|unix.MS_PRIVATE, "")
	base := filepath.Join(spec.Dir, "root")
	m.memory(base, "755")
	upper, work, root := filepath.Join(base, "upper"), filepath.Join(base, "work"), filepath.Join(base, "fs")
	m.mkdir(upper, work)
	m.do("overlay", root, "overlay", 0, "lowerdir=/,upperdir="+upper+",workdir="+work)
	if m.err != nil {
		return m.err
	}
	if err := os.Chdir(root); err != nil {
		return err
	}
	m.kernel(tree)
	m.pretend(filepath.Join(base, "sysctl"))
	m.content(spec)
	m.hide(spec.Hide)
	if m.err != nil {
		return m.err
	}
	return enterRoot()
}

// kernel mounts the views of the kernel, relative to the new root.
func (m *mounter) kernel(tree cgroup.Tree) {
	m.do("proc", "proc", "proc", 0, "")
	m.do("sysfs", "sys", "sysfs", 0, "")
	m.do("/dev", "dev", "", unix.MS_BIND|unix.MS_REC, "")
	m.memory("run", "755")
	m.do("bpf", "sys/fs/bpf", "bpf", 0, "")
	// Mounted from within a cgroup namespace, each hierarchy shows only the node's own part.
	if len(tree) > 1 {
		m.memory("sys/fs/cgroup", "755")
	}
	for _, h := range tree {
		kind := "cgroup"
		if h.Unified {
			kind = "cgroup2"
		}
		m.do("cgroup", strings.TrimPrefix(h.Path, "/"), kind, 0, h.Options)
	}
}

func (m *mounter) pretend(dir string) {
	m.mkdir(dir)
	for target, value := range pretended {
		file := filepath.Join(dir, filepath.Base(target))
		m.write(file, value)
		m.onto(file, target, "", unix.MS_BIND, "")
	}
}

// content mounts and writes the files of a node, relative to the new root.
func (m *mounter) content(spec Spec) {
	for _, dir := range realDisk {
		disk := filepath.Join(spec.Dir, "disk", dir)
		m.mkdir(disk)
		m.bind(disk, dir)
	}
	for _, dir := range []string{"etc/cni", "opt/cni", "var/lib/cni"} {
		m.memory(dir, "755")
	}
	m.mkdir("etc/cni/net.d", "opt/cni/bin", "var/log/containers", "run/lab", "run/netns")
	m.bind(spec.Logs, "var/log/lab")
	m.bind(spec.Etc(), "etc/kubernetes")
	m.bindReadOnly(spec.Programs, "opt/lab")
	m.bindReadOnly(spec.Images, "opt/images")
	for _, file := range spec.Plugins {
		m.install(file, filepath.Join("opt/cni/bin", filepath.Base(file)))
	}
	id := sha256.Sum256([]byte(spec.Dir))
	m.write("etc/machine-id", hex.EncodeToString(id[:16])+"\n")
	m.write("etc/hostname", spec.Name+"\n")
	m.write("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n127.0.1.1 "+spec.Name+"\n")
	m.write("etc/resolv.conf", "") // a node knows no name server: nothing leads out of the lab
}

func (m *mounter) install(source, target string) {
	if m.err != nil {
		return
	}
	content, err := os.ReadFile(source)
	if err == nil {
		err = os.WriteFile(target, content, 0o755)
	}
	m.err = err
}

func (m *mounter) hide(dirs []string) {
	for _, dir := range dirs {
		dir = strings.TrimPrefix(filepath.Clean(dir), "/")
		if info, err := os.Stat(dir); err == nil && info.IsDir() {
			m.memory(dir, "1777")
		}
	}
}

// enterRoot makes the working directory the root, and forgets the old one.
func enterRoot() error {
	if err := unix.PivotRoot(".", "."); err != nil {
		return fmt.Errorf("enter the node's root: %w", err)
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return fmt.Errorf("leave the machine's root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return err
	}
	// Pods with two-way mounts need it; the peers are all within the node.
	return unix.Mount("", "/", "", unix.MS_REC|unix.MS_SHARED, "")
}
