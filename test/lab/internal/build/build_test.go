// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package build

import (
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/test/lab/internal/console"
	"github.com/sealane/sealane/test/lab/internal/paths"
)

func TestTargetsAreSound(t *testing.T) {
	keys := map[string]bool{}
	for _, target := range Targets() {
		if keys[target.Key()] {
			t.Errorf("two targets have the key %s", target.Key())
		}
		keys[target.Key()] = true
		if _, err := packagesFor(target.Tools, onMachine); err != nil {
			t.Errorf("%s: %v", target.Name, err)
		}
		for _, b := range target.Builds {
			if b.Cgo != (len(target.Tools) > 0) {
				t.Errorf("%s: a build with cgo needs a compiler, and no other does", target.Name)
			}
			if (b.Verb == "install") != (target.Module == "") {
				t.Errorf("%s: verb %q with module %q", target.Name, b.Verb, target.Module)
			}
		}
	}
	for _, tools := range [][]string{RunTools(), ImageTools()} {
		if _, err := packagesFor(tools, onMachine); err != nil {
			t.Error(err)
		}
	}
}

func TestKeyChangesWithContent(t *testing.T) {
	a := Target{Name: "x", Version: "v1", Builds: []Build{{Verb: "install"}}}
	b := a
	b.Builds = []Build{{Verb: "install", Tags: "seccomp"}}
	if a.Key() == b.Key() {
		t.Errorf("both are %s", a.Key())
	}
	if !strings.HasPrefix(a.Key(), "x-v1-") {
		t.Errorf("got %s", a.Key())
	}
}

func TestArguments(t *testing.T) {
	tests := map[string]struct {
		target Target
		args   []string
		env    []string
	}{
		"install": {
			Target{Version: "v1.2.3", Builds: []Build{{Verb: "install", LDFlags: strip, Tags: "seccomp", Cgo: true, Packages: []string{"a.io/b", "a.io/c"}}}},
			[]string{"install", "-trimpath", "-tags", "seccomp", "-ldflags", "-s -w", "a.io/b@v1.2.3", "a.io/c@v1.2.3"},
			[]string{"CGO_ENABLED=1", "GOFLAGS=-buildvcs=false", "GOWORK=off", "GOBIN=/out"},
		},
		"build": {
			Target{Module: "m", Builds: []Build{{Verb: "build", LDFlags: strip, Packages: []string{"a.io/b", "a.io/c"}}}},
			[]string{"build", "-trimpath", "-ldflags", "-s -w", "-o", "/out/", "a.io/b", "a.io/c"},
			[]string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off"},
		},
		"test": {
			Target{Module: "m", Builds: []Build{{Verb: "test", Output: "e2e.test", Packages: []string{"a.io/b"}}}},
			[]string{"test", "-trimpath", "-c", "-o", "/out/e2e.test", "a.io/b"},
			[]string{"CGO_ENABLED=0", "GOFLAGS=-buildvcs=false", "GOWORK=off"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			b := tt.target.Builds[0]
			if diff := cmp.Diff(tt.args, tt.target.arguments(b, "/out")); diff != "" {
				t.Error(diff)
			}
			if diff := cmp.Diff(tt.env, b.environment("/out")); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestFind(t *testing.T) {
	got, err := Find("runc", "kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 2 || got[0].Name != "kubernetes" || got[1].Name != "runc" {
		t.Errorf("got %v", got)
	}
	if _, err := Find("docker"); !errors.Is(err, ErrTarget) {
		t.Errorf("got %v, want %v", err, ErrTarget)
	}
}

func TestKubernetesModule(t *testing.T) {
	const upstream = `module k8s.io/kubernetes

go 1.26.0

replace k8s.io/api => ./staging/src/k8s.io/api

replace (
	k8s.io/client-go => ./staging/src/k8s.io/client-go
	example.com/other => ../other
)
`
	const want = `module lab

go 1.26.0

require k8s.io/kubernetes v1.36.3

replace (
	k8s.io/api => k8s.io/api v0.36.3
	k8s.io/client-go => k8s.io/client-go v0.36.3
)
`
	if diff := cmp.Diff(want, kubernetesModule(upstream, "v1.36.3")); diff != "" {
		t.Error(diff)
	}
}

func TestToolsFileImportsEveryPackage(t *testing.T) {
	file := toolsFile(moduleK8)
	for _, target := range Targets() {
		for _, b := range target.Builds {
			for _, p := range b.Packages {
				if has := strings.Contains(file, "\t_ \""+p+"\"\n"); has != (target.Module == moduleK8) {
					t.Errorf("%s of %s: imported %t", p, target.Name, has)
				}
			}
		}
	}
}

// The sources of generated modules must at least be Go.
func TestSourcesParse(t *testing.T) {
	for _, module := range []string{moduleK8, moduleEt, moduleDNS} {
		if _, err := parser.ParseFile(token.NewFileSet(), module, source(module), parser.AllErrors); err != nil {
			t.Error(err)
		}
	}
}

func TestPackagesFor(t *testing.T) {
	there := func(tool Tool) bool { return tool.Name == "gcc" }
	got, err := packagesFor([]string{"ss", "gcc", "ip", "seccomp.h"}, there)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"iproute2", "libseccomp-dev"}, got); diff != "" {
		t.Error(diff)
	}
	if _, err := packagesFor([]string{"emacs"}, there); !errors.Is(err, ErrMissing) {
		t.Errorf("got %v, want %v", err, ErrMissing)
	}
}

// fakeApt puts an apt-get into PATH, and nothing else, which writes its arguments to the file that is returned.
func fakeApt(t *testing.T, script string) (calls string) {
	t.Helper()
	dir := t.TempDir()
	calls = filepath.Join(dir, "calls")
	text := "#!/bin/sh\necho \"$DEBIAN_FRONTEND $*\" >>" + calls + "\n" + script
	if err := os.WriteFile(filepath.Join(dir, "apt-get"), []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	return calls
}

func TestEnsureToolsUpdatesStaleLists(t *testing.T) {
	calls := fakeApt(t, `[ "$2" != update ] || : >"$0.updated"
[ -e "$0.updated" ]
`)
	if err := EnsureTools(t.Context(), console.New(io.Discard), []string{"nft"}); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(calls)
	if err != nil {
		t.Fatal(err)
	}
	const install = "noninteractive -q install -y --no-install-recommends nftables\n"
	if diff := cmp.Diff(install+"noninteractive -q update\n"+install, string(got)); diff != "" {
		t.Error(diff)
	}
}

func TestEnsureToolsWithoutApt(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	err := EnsureTools(t.Context(), console.New(io.Discard), []string{"nft"})
	if !errors.Is(err, ErrMissing) || !strings.Contains(err.Error(), "nftables") {
		t.Errorf("got %v, want %v with the package's name", err, ErrMissing)
	}
}

func builder(t *testing.T) *Builder {
	t.Helper()
	return New(paths.Paths{Name: "t", Cache: t.TempDir(), Base: t.TempDir()}, console.New(io.Discard))
}

// A go command that fails half way must leave nothing that looks like a finished target.
func TestEnsureLeavesNothingHalf(t *testing.T) {
	b := builder(t)
	dir := t.TempDir()
	script := "#!/bin/sh\n: >\"$GOBIN/half\"\necho broken >&2\nexit 1\n"
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	target := Target{Name: "x", Version: "v1", Builds: []Build{{Verb: "install", Packages: []string{"a.io/b"}}}}
	err := b.Ensure(t.Context(), []Target{target})
	if err == nil || !strings.Contains(err.Error(), "broken") || !strings.Contains(err.Error(), "x.log") {
		t.Errorf("got %v, want what the command said and the log's path", err)
	}
	left, err := os.ReadDir(b.programs)
	if err != nil || len(left) > 0 {
		t.Errorf("left %v %v", left, err)
	}
}

func TestEnsureBuildsOnce(t *testing.T) {
	b := builder(t)
	dir := t.TempDir()
	calls := filepath.Join(dir, "calls")
	script := "#!/bin/sh\necho \"$*\" >>" + calls + "\n: >\"$GOBIN/b\"\n"
	if err := os.WriteFile(filepath.Join(dir, "go"), []byte(script), 0o755); err != nil {
		t.Fatal(err)
	}
	t.Setenv("PATH", dir)
	target := Target{Name: "x", Version: "v1", Builds: []Build{{Verb: "install", Packages: []string{"a.io/b"}}}}
	for range 2 {
		if err := b.Ensure(t.Context(), []Target{target}); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := os.Stat(filepath.Join(b.Dir(target), "b")); err != nil {
		t.Error(err)
	}
	text, err := os.ReadFile(calls)
	if err != nil || slices.Collect(strings.Lines(string(text)))[0] != "install -trimpath a.io/b@v1\n" || strings.Count(string(text), "\n") != 1 {
		t.Errorf("calls: %q %v", text, err)
	}
}
