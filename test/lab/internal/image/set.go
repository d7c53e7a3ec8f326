// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package image

import (
	"bytes"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/sealane/sealane/test/lab/internal/build"
	"github.com/sealane/sealane/test/lab/internal/console"
)

// Names of the images, as Kubernetes [build.Kubernetes] and its test suite ask for them.
const (
	Pause         = "registry.k8s.io/pause:3.10.2"
	Agnhost       = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"
	agnhostBefore = "registry.k8s.io/e2e-test-images/agnhost:2.55"
	dnsTesting    = "registry.k8s.io/e2e-test-images/glibc-dns-testing:2.0.0" // tests use its dig and getent
	iptables      = "registry.k8s.io/build-image/distroless-iptables:v0.9.6"  // a test uses its conntrack
	tcpReset      = "registry.k8s.io/e2e-test-images/regression-issue-74839:1.4"
	Busybox       = "registry.k8s.io/e2e-test-images/busybox:1.37.0-1"
	CoreDNS       = "registry.k8s.io/coredns/coredns:" + build.CoreDNS
)

// recipe is part of the cache's key: change it when the content of an image changes.
const recipe = "1"

//go:embed pause/pause.c
var pauseSource string

// Targets names the targets whose programs the images hold.
func Targets() []string { return []string{"agnhost", "coredns"} }

// Set makes the lab's images.
type Set struct {
	Dir     string // of all sets
	Builder *build.Builder
	Console *console.Console
}

// Path is the archive that holds the images, once made.
func (s Set) Path() (string, error) {
	targets, err := build.Find(Targets()...)
	if err != nil {
		return "", err
	}
	key := sha256.New()
	for _, t := range targets {
		fmt.Fprintln(key, t.Key())
	}
	fmt.Fprintln(key, recipe, pauseSource)
	return filepath.Join(s.Dir, hex.EncodeToString(key.Sum(nil)[:4]), "images.tar"), nil
}

// Ensure makes the archive if it is not there.
func (s Set) Ensure(ctx context.Context) (string, error) {
	file, err := s.Path()
	if err != nil {
		return "", err
	}
	if _, err := os.Stat(file); err == nil {
		return file, nil
	}
	if err := build.EnsureTools(ctx, s.Console, build.ImageTools()); err != nil {
		return "", err
	}
	targets, err := build.Find(Targets()...)
	if err != nil {
		return "", err
	}
	if err := s.Builder.Ensure(ctx, targets); err != nil {
		return "", err
	}
	unlock, err := s.Builder.Lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	return file, s.Console.Step(ctx, "make images", func(ctx context.Context) error { return s.make(ctx, file, targets) })
}

func (s Set) make(ctx context.Context, file string, targets []build.Target) error {
	// What is there was cut off.
	if err := errors.Join(os.RemoveAll(filepath.Dir(file)), os.MkdirAll(filepath.Dir(file), 0o755)); err != nil {
		return err
	}
	programs := map[string]string{}
	for _, t := range targets {
		programs[t.Name] = s.Builder.Dir(t)
	}
	pause := filepath.Join(filepath.Dir(file), "pause")
	if err := compilePause(ctx, pause); err != nil {
		return err
	}
	defer os.Remove(pause)
	porter, err := build.ModuleDir(ctx, "k8s.io/kubernetes", build.Kubernetes)
	if err != nil {
		return err
	}
	images, err := contents(ctx, programs, pause, filepath.Join(porter, "test/images/agnhost/porter"))
	if err != nil {
		return err
	}
	if err := Archive(file+".new", images); err != nil {
		return err
	}
	return os.Rename(file+".new", file)
}

func compilePause(ctx context.Context, out string) error {
	cmd := exec.CommandContext(ctx, "gcc", "-Os", "-s", "-static", "-x", "c", "-o", out, "-")
	cmd.Stdin = strings.NewReader(pauseSource)
	if text, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("compile pause: %w: %s", err, text)
	}
	return nil
}

// contents describes every image. Where a test wants an image only for a program in it, agnhost has that name too.
func contents(ctx context.Context, programs map[string]string, pause, porter string) ([]Image, error) {
	paths := []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"}
	only := func(name, source string) *Files {
		f := &Files{}
		f.Copy(name, source, 0o755)
		return f
	}
	shell, err := busybox(ctx, base())
	if err != nil {
		return nil, err
	}
	agnhost, err := agnhostFiles(ctx, programs, porter)
	if err != nil {
		return nil, err
	}
	dns := base()
	dns.Copy("coredns", filepath.Join(programs["coredns"], "coredns"), 0o755)
	return []Image{
		{Tags: []string{Pause}, Files: only("pause", pause), Config: v1.Config{Entrypoint: []string{"/pause"}, User: "65535:65535"}},
		{Tags: []string{Busybox}, Files: shell, Config: v1.Config{Cmd: []string{"sh"}, Env: paths}},
		{
			Tags: []string{Agnhost, agnhostBefore, dnsTesting, iptables}, Files: agnhost,
			Config: v1.Config{Entrypoint: []string{"/agnhost"}, Cmd: []string{"pause"}, Env: paths},
		},
		{
			Tags: []string{tcpReset}, Files: only("regression-issue-74839", filepath.Join(programs["agnhost"], "regression-issue-74839")),
			Config: v1.Config{Entrypoint: []string{"/regression-issue-74839"}},
		},
		{Tags: []string{CoreDNS}, Files: dns, Config: v1.Config{Entrypoint: []string{"/coredns"}}},
	}, nil
}

// base holds the few files that programs look up; tests expect the users and groups beside root.
func base() *Files {
	f := &Files{}
	for _, dir := range []string{"root", "proc", "sys", "dev", "var/run", "bin", "usr/bin", "usr/sbin"} {
		f.Dir(dir, 0o755)
	}
	f.Dir("tmp", 0o1777)
	f.Text("etc/passwd", "root:x:0:0:root:/root:/bin/sh\nuser-defined-in-image:x:1000:1000::/:/bin/sh\nnobody:x:65534:65534::/:/bin/false\n")
	f.Text("etc/group", "root:x:0:\nuser-defined-in-image:x:1000:\ngroup-defined-in-image:x:50000:user-defined-in-image\nnogroup:x:65534:\n")
	f.Text("etc/nsswitch.conf", "hosts: files dns\n")
	return f
}

// busybox adds busybox, and a link for each of its commands whose name is still free.
func busybox(ctx context.Context, f *Files) (*Files, error) {
	program, err := exec.LookPath("busybox")
	if err != nil {
		return nil, err
	}
	list, err := exec.CommandContext(ctx, program, "--list").Output()
	if err != nil {
		return nil, fmt.Errorf("list busybox commands: %w", err)
	}
	f.Copy("bin/busybox", program, 0o755)
	for command := range strings.FieldsSeq(string(list)) {
		if !f.Has("bin/"+command) && !f.Has("usr/bin/"+command) && !f.Has("usr/sbin/"+command) {
			f.Link("bin/"+command, "busybox")
		}
	}
	return f, nil
}

func agnhostFiles(ctx context.Context, programs map[string]string, porter string) (*Files, error) {
	f := base()
	f.Dir("uploads", 0o755)
	f.Copy("agnhost", filepath.Join(programs["agnhost"], "agnhost"), 0o755)
	f.Link("agnhost-2", "agnhost")
	f.Copy("coredns", filepath.Join(programs["coredns"], "coredns"), 0o755) // DNS tests start it from here
	for _, name := range []string{"localhost.crt", "localhost.key"} {
		f.Copy(name, filepath.Join(porter, name), 0o644)
	}
	for _, name := range []string{"bash", "curl", "wget", "nc.openbsd", "dig", "getent", "ip", "ss", "iperf3", "conntrack"} {
		if err := program(ctx, f, name); err != nil {
			return nil, err
		}
	}
	// Busybox's shell would run its own nc and wget, whatever PATH says.
	f.Link("bin/bash", "/usr/bin/bash")
	f.Link("bin/sh", "bash")
	f.Link("usr/bin/nc", "nc.openbsd")
	return busybox(ctx, f)
}

var libraries = regexp.MustCompile(`(?m)(/\S+) \(0x`)

// program adds a program of the machine to /usr/bin, and every library that it loads where it looks for it.
func program(ctx context.Context, f *Files, name string) error {
	found, err := exec.LookPath(name)
	if err != nil {
		return err
	}
	if found, err = filepath.EvalSymlinks(found); err != nil {
		return err
	}
	f.Copy(path.Join("usr/bin", name), found, 0o755)
	list, err := exec.CommandContext(ctx, "ldd", found).CombinedOutput()
	if err != nil && !bytes.Contains(list, []byte("not a dynamic executable")) {
		return fmt.Errorf("list libraries of %s: %w: %s", name, err, list)
	}
	for _, m := range libraries.FindAllStringSubmatch(string(list), -1) {
		f.Copy(m[1], m[1], 0o755)
	}
	return nil
}
