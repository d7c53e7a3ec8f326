// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package build

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
)

// generate makes a module that can build t, unless it is there, and returns its directory.
func (b *Builder) generate(ctx context.Context, t Target, log io.Writer) (string, error) {
	dir := filepath.Join(b.work, t.Module+"-"+t.Version)
	if _, err := os.Stat(dir); !errors.Is(err, fs.ErrNotExist) {
		return dir, err
	}
	text, err := moduleText(ctx, t)
	if err != nil {
		return "", err
	}
	fresh := dir + ".new"
	if err := errors.Join(os.RemoveAll(fresh), os.MkdirAll(fresh, 0o755)); err != nil {
		return "", err
	}
	if err := errors.Join(
		os.WriteFile(filepath.Join(fresh, "go.mod"), []byte(text), 0o644),
		os.WriteFile(filepath.Join(fresh, "main.go"), []byte(source(t.Module)), 0o644),
	); err != nil {
		return "", err
	}
	// -e: some tests of some packages import modules that nobody published.
	cmd := exec.CommandContext(ctx, "go", "mod", "tidy", "-e")
	cmd.Dir, cmd.Stdout, cmd.Stderr = fresh, log, log
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=mod", "GOWORK=off")
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("resolve the modules of %s: %w", t.Module, err)
	}
	return dir, os.Rename(fresh, dir)
}

func moduleText(ctx context.Context, t Target) (string, error) {
	switch t.Module {
	case moduleEt:
		return requireOnly("go.etcd.io/etcd/server/v3", t.Version), nil
	case moduleDNS:
		return requireOnly("github.com/coredns/coredns", t.Version), nil
	case moduleK8:
		root, err := ModuleDir(ctx, repo, t.Version)
		if err != nil {
			return "", err
		}
		upstream, err := os.ReadFile(filepath.Join(root, "go.mod"))
		return kubernetesModule(string(upstream), t.Version), err
	}
	return "", fmt.Errorf("%w: no module %q", ErrTarget, t.Module)
}

// source is the only file of a generated module.
func source(module string) string {
	if module == moduleDNS {
		return dnsSource()
	}
	return toolsFile(module)
}

// dnsSource is CoreDNS with the plugins that the lab and upstream's tests configure. All of its plugins
// would take twice as long to build, for the clients of clouds that nobody asks here.
func dnsSource() string {
	const repo = "github.com/coredns/coredns"
	var text strings.Builder
	fmt.Fprintf(&text, "package main\n\nimport (\n\t%q\n", repo+"/coremain")
	for _, plugin := range []string{"cache", "errors", "forward", "health", "hosts", "kubernetes", "log", "metrics", "ready", "template"} {
		fmt.Fprintf(&text, "\t_ %q\n", repo+"/plugin/"+plugin)
	}
	text.WriteString(")\n\nfunc main() { coremain.Run() }\n")
	return text.String()
}

// toolsFile imports every package that is built in a module, so that the module requires what they need.
func toolsFile(module string) string {
	var imports []string
	for _, t := range Targets() {
		for _, b := range t.Builds {
			if t.Module == module {
				imports = append(imports, b.Packages...)
			}
		}
	}
	var text strings.Builder
	text.WriteString("//go:build tools\n\npackage lab\n\nimport (\n")
	for _, path := range imports {
		fmt.Fprintf(&text, "\t_ %q\n", path)
	}
	text.WriteString(")\n")
	return text.String()
}

func requireOnly(module, version string) string {
	return "module lab\n\ngo 1.26.0\n\nrequire " + module + " " + version + "\n"
}

var staging = regexp.MustCompile(`(?m)^\s*(?:replace\s+)?(k8s\.io/[a-z0-9-]+)\s+=>\s+\./staging/`)

// kubernetesModule makes a go.mod that requires Kubernetes as a library. Its own go.mod replaces the staging
// modules by directories, which does not count in a module that requires it: they are published as v0.X.Y.
func kubernetesModule(upstream, version string) string {
	var replace strings.Builder
	for _, m := range staging.FindAllStringSubmatch(upstream, -1) {
		fmt.Fprintf(&replace, "\t%s => %s v0.%s\n", m[1], m[1], strings.TrimPrefix(version, "v1."))
	}
	return requireOnly(repo, version) + "\nreplace (\n" + replace.String() + ")\n"
}

// ModuleDir downloads a module, if need be, and returns the directory of its source.
func ModuleDir(ctx context.Context, module, version string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module+"@"+version)
	cmd.Dir = "/" // outside of any module
	out, err := cmd.Output()
	var answer struct{ Dir, Error string }
	if jsonErr := json.Unmarshal(out, &answer); jsonErr != nil {
		return "", fmt.Errorf("download %s@%s: %w", module, version, errors.Join(err, jsonErr))
	}
	if err != nil || answer.Error != "" {
		return "", fmt.Errorf("download %s@%s: %w: %s", module, version, err, answer.Error)
	}
	return answer.Dir, nil
}
