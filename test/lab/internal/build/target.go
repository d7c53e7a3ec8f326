// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package build makes the programs that the lab runs, from source, through the Go module proxy.
package build

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"path"
	"slices"
	"strings"
)

// Versions of what the lab is made of.
const (
	Kubernetes = "v1.36.3"
	Etcd       = "v3.6.8"
	Containerd = "v2.4.2"
	Runc       = "v1.5.2"
	Plugins    = "v1.9.1"
	CoreDNS    = "v1.15.0"
	Flannel    = "v0.26.7" // later ones need a module that the proxy does not serve
)

// Target is a set of programs that are built together.
type Target struct {
	Name    string
	Version string
	Module  string   // generated module to build in; "" installs from the proxy as is
	Builds  []Build  // one "go" command each
	Tools   []string // programs and headers of the machine that the build needs, see package debian's names
}

// Build is one call of the go command.
type Build struct {
	Verb     string   // "build", "install" or "test"
	Packages []string // import paths
	Output   string   // file to write, "" for the packages' own names
	LDFlags  string
	Tags     string
	Cgo      bool
}

const (
	strip     = "-s -w"
	repo      = "k8s.io/kubernetes"
	moduleK8  = "kubernetes"
	moduleEt  = "etcd"
	moduleDNS = "coredns"
)

// stamp gives Kubernetes programs their version: without it they call themselves v0.0.0 and refuse each other.
func stamp() string {
	const in = " -X k8s.io/component-base/version."
	minor := strings.Split(Kubernetes, ".")[1]
	return strip + in + "gitVersion=" + Kubernetes + in + "gitMajor=1" + in + "gitMinor=" + minor
}

func each(prefix string, names ...string) []string {
	out := slices.Clone(names)
	for i, n := range names {
		out[i] = path.Join(prefix, n)
	}
	return out
}

// Targets lists everything that can be built, in the order in which it is best built.
func Targets() []Target {
	plugins := "github.com/containernetworking/plugins/plugins"
	return []Target{
		{Name: "kubernetes", Version: Kubernetes, Module: moduleK8, Builds: []Build{{Verb: "build", LDFlags: stamp(), Packages: each(repo+"/cmd",
			"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet", "kube-proxy", "kubectl")}}},
		{Name: "containerd", Version: Containerd, Builds: []Build{{
			Verb: "install", LDFlags: strip,
			Packages: each("github.com/containerd/containerd/v2/cmd", "containerd", "containerd-shim-runc-v2", "ctr"),
		}}},
		{Name: "runc", Version: Runc, Tools: []string{"gcc", "pkg-config", "seccomp.h", "libc.h"}, Builds: []Build{{
			Verb: "install", LDFlags: strip,
			Tags: "seccomp", Cgo: true, Packages: []string{"github.com/opencontainers/runc"},
		}}}, // no pod starts without seccomp
		{Name: "plugins", Version: Plugins, Builds: []Build{{Verb: "install", LDFlags: strip, Packages: slices.Concat(
			each(plugins+"/main", "bridge", "loopback", "ptp"), each(plugins+"/ipam", "host-local"), each(plugins+"/meta", "portmap"))}}},
		{Name: "etcd", Version: Etcd, Module: moduleEt, Builds: []Build{{
			Verb: "build", LDFlags: strip, Output: "etcd",
			Packages: []string{"go.etcd.io/etcd/server/v3"},
		}}},
		{Name: "agnhost", Version: Kubernetes, Module: moduleK8, Builds: []Build{{
			Verb: "build", LDFlags: strip,
			Packages: each(repo+"/test/images", "agnhost", "regression-issue-74839"),
		}}},
		{Name: "coredns", Version: CoreDNS, Module: moduleDNS, Builds: []Build{{Verb: "build", LDFlags: strip, Output: "coredns", Packages: []string{"."}}}},
		{Name: "flannel", Version: Flannel, Tools: []string{"gcc", "libc.h"}, Builds: []Build{{
			Verb: "install", LDFlags: strip, Cgo: true,
			Packages: []string{"github.com/flannel-io/flannel"},
		}}},
		{Name: "e2e", Version: Kubernetes, Module: moduleK8, Builds: []Build{
			{Verb: "test", LDFlags: stamp(), Output: "e2e.test", Packages: []string{repo + "/test/e2e"}},
			{Verb: "build", Output: "ginkgo", Packages: []string{"github.com/onsi/ginkgo/v2/ginkgo"}},
		}},
	}
}

// Find returns the targets with the given names, in the order of [Targets].
func Find(names ...string) ([]Target, error) {
	all := Targets()
	for _, name := range names {
		if !slices.ContainsFunc(all, func(t Target) bool { return t.Name == name }) {
			return nil, fmt.Errorf("%w: %q: want one of %s", ErrTarget, name, strings.Join(Names(), ", "))
		}
	}
	return slices.DeleteFunc(all, func(t Target) bool { return !slices.Contains(names, t.Name) }), nil
}

// Names lists the names of all targets.
func Names() []string {
	var names []string
	for _, t := range Targets() {
		names = append(names, t.Name)
	}
	return names
}

// Key names the directory of a target's programs. It changes with anything that could change them.
func (t Target) Key() string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%+v", t))
	return t.Name + "-" + t.Version + "-" + hex.EncodeToString(sum[:4])
}

// arguments are those of the go command that makes b, writing into the directory out.
func (t Target) arguments(b Build, out string) []string {
	args := []string{b.Verb, "-trimpath"}
	if b.Verb == "test" {
		args = append(args, "-c")
	}
	if b.Tags != "" {
		args = append(args, "-tags", b.Tags)
	}
	if b.LDFlags != "" {
		args = append(args, "-ldflags", b.LDFlags)
	}
	if b.Verb == "install" {
		for _, p := range b.Packages {
			args = append(args, p+"@"+t.Version)
		}
		return args
	}
	return append(append(args, "-o", out+"/"+b.Output), b.Packages...)
}

// environment is what the go command needs beside the caller's own.
func (b Build) environment(out string) []string {
	cgo := "CGO_ENABLED=0"
	if b.Cgo {
		cgo = "CGO_ENABLED=1"
	}
	env := []string{cgo, "GOFLAGS=-buildvcs=false", "GOWORK=off"}
	if b.Verb == "install" {
		env = append(env, "GOBIN="+out)
	}
	return env
}
