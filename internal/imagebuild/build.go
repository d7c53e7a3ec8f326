// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Where programs are in the image. The agent's install command copies what is
// in pluginDir to the node.
const (
	programDir = "usr/bin"
	pluginDir  = "opt/cni/bin"
)

// plugins are the CNI plugins that come with ours, by their import paths in
// a module that go.mod pins.
const pluginModule = "github.com/containernetworking/plugins"

var plugins = []string{pluginModule + "/plugins/meta/portmap", pluginModule + "/plugins/main/loopback"}

// packages are Debian's packages that the image takes files from: sealaned
// runs nft, and nft looks up protocols by name.
var packages = []string{"nftables", "netbase"}

func build(ctx context.Context, opts options, log *slog.Logger) error {
	work, err := os.MkdirTemp("", "sealane-image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	var images []v1.Image
	var parts []component
	for _, platform := range opts.platforms {
		arch := strings.TrimPrefix(platform, "linux/")
		log.Info("build image", "platform", platform)
		layers, err := content(ctx, opts, arch, filepath.Join(work, arch))
		if err != nil {
			return err
		}
		made, err := components(opts, layers)
		if err != nil {
			return err
		}
		parts = append(parts, made...)
		img, err := assemble(opts, arch, layers)
		if err != nil {
			return fmt.Errorf("assemble image for %s: %w", arch, err)
		}
		images = append(images, img)
	}
	if err := write(opts, images, work); err != nil {
		return fmt.Errorf("write %s: %w", opts.out, err)
	}
	if err := writeBill(opts, parts); err != nil {
		return fmt.Errorf("write %s: %w", opts.bill(), err)
	}
	info, err := os.Stat(opts.out)
	if err != nil {
		return err
	}
	log.Info("wrote image", "file", opts.out, "contents", opts.bill(), "name", opts.name, "mebibytes", info.Size()>>20)
	return nil
}

// content returns the layers for one architecture, what changes least first:
// Debian's files, other people's plugins, our own programs.
func content(ctx context.Context, opts options, arch, work string) ([][]file, error) {
	debian, err := debianFiles(ctx, opts.cache, arch)
	if err != nil {
		return nil, fmt.Errorf("take nft from Debian for %s: %w", arch, err)
	}
	version, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Version}}", pluginModule).Output()
	if err != nil {
		return nil, fmt.Errorf("go list -m %s: %w", pluginModule, err)
	}
	foreign, err := compile(ctx, compilation{
		arch: arch, out: filepath.Join(work, "plugins"), packages: plugins, into: pluginDir,
		variable: pluginModule + "/pkg/utils/buildversion.BuildVersion=" + strings.TrimSpace(string(version)),
	})
	if err != nil {
		return nil, err
	}
	own, err := compile(ctx, compilation{
		arch: arch, out: filepath.Join(work, "programs"), packages: []string{"./cmd/..."}, into: programDir,
		variable: "main.version=" + opts.version,
	})
	if err != nil {
		return nil, err
	}
	for i, f := range own {
		if path.Base(f.path) == "sealane-cni" {
			own[i].path = path.Join(pluginDir, "sealane-cni")
		}
	}
	return [][]file{append(skeleton(), debian...), foreign, own}, nil
}

// debianFiles unpacks Debian's packages and picks nft with its libraries, the
// tables of names and what the licences ask to be kept beside them.
func debianFiles(ctx context.Context, cache, arch string) ([]file, error) {
	dir := filepath.Join(cache, arch)
	cmd := exec.CommandContext(ctx, "internal/imagebuild/debian", append([]string{arch, dir}, packages...)...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, err
	}
	root, err := os.OpenRoot(filepath.Join(dir, "root"))
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files, err := closure(root, "usr/sbin/nft", triplets[arch])
	if err != nil {
		return nil, err
	}
	texts, err := matching(root, "etc/protocols", "etc/services", "usr/share/doc/*/copyright", "var/lib/dpkg/status.d/*")
	return append(files, texts...), err
}

// compilation is one run of go build.
type compilation struct {
	arch     string
	out      string // folder on this machine
	packages []string
	into     string // folder in the image
	variable string // to be set by the linker, name=value
}

func compile(ctx context.Context, c compilation) ([]file, error) {
	if err := os.MkdirAll(c.out, 0o755); err != nil {
		return nil, err
	}
	args := append([]string{"build", "-trimpath", "-ldflags", "-s -w -X " + c.variable, "-o", c.out + "/"}, c.packages...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOOS=linux", "GOARCH="+c.arch)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go build %s for %s: %w", strings.Join(c.packages, " "), c.arch, err)
	}
	root, err := os.OpenRoot(c.out)
	if err != nil {
		return nil, err
	}
	defer root.Close()
	files, err := matching(root, "*")
	for i := range files {
		files[i].path = path.Join(c.into, files[i].path)
	}
	return files, err
}
