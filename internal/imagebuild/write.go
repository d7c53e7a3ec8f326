// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// assemble makes an image of layers.
func assemble(opts options, arch string, layers [][]file) (v1.Image, error) {
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, files := range layers {
		layer, err := newLayer(opts, files)
		if err != nil {
			return nil, err
		}
		if img, err = mutate.AppendLayers(img, layer); err != nil {
			return nil, err
		}
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	cfg = cfg.DeepCopy()
	cfg.OS, cfg.Architecture, cfg.Created = "linux", arch, v1.Time{Time: opts.date}
	for i := range cfg.History {
		cfg.History[i].Created = cfg.Created
	}
	cfg.Config = v1.Config{
		Env:        []string{"PATH=/usr/bin:/usr/sbin"},
		Entrypoint: []string{"/usr/bin/sealaned"},
		WorkingDir: "/",
		Labels:     labels(opts),
	}
	return mutate.ConfigFile(img, cfg)
}

func labels(opts options) map[string]string {
	const prefix = "org.opencontainers.image."
	return map[string]string{
		prefix + "title":       "Sealane",
		prefix + "description": "Kubernetes CNI whose nodes talk only through certified, encrypted lanes",
		prefix + "source":      "https://github.com/sealane/sealane",
		prefix + "licenses":    "Apache-2.0",
		prefix + "version":     opts.version,
		prefix + "revision":    opts.revision,
		prefix + "created":     opts.date.Format("2006-01-02T15:04:05Z"),
	}
}

func newLayer(opts options, files []file) (v1.Layer, error) {
	var buf bytes.Buffer
	if err := archive(&buf, files, opts.date); err != nil {
		return nil, err
	}
	open := func() (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(buf.Bytes())), nil }
	return tarball.LayerFromOpener(open, tarball.WithCompressedCaching, tarball.WithMediaType(types.OCILayer),
		tarball.WithCompressionLevel(gzip.BestSpeed))
}

// write stores the images as one archive that is both an OCI image layout
// (read by containerd, Podman and registry tools) and what docker save writes
// (one platform: this machine's if it is there, else the first).
func write(opts options, images []v1.Image, work string) error {
	index, err := newIndex(opts, images)
	if err != nil {
		return err
	}
	dir := filepath.Join(work, "layout")
	if _, err := layout.Write(dir, index); err != nil {
		return err
	}
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	files, err := matching(root, "oci-layout", "index.json", "blobs/sha256/*")
	if err != nil {
		return err
	}
	docker, err := dockerManifest(opts, images)
	if err != nil {
		return err
	}
	if err := os.MkdirAll(filepath.Dir(opts.out), 0o755); err != nil {
		return err
	}
	out, err := os.Create(opts.out + ".part")
	if err != nil {
		return err
	}
	if err := errors.Join(archive(out, append(files, docker), opts.date), out.Close()); err != nil {
		return err
	}
	return os.Rename(opts.out+".part", opts.out)
}

// newIndex names the image the way that containerd's import wants it. Several
// platforms go into an index of their own under that name.
func newIndex(opts options, images []v1.Image) (v1.ImageIndex, error) {
	annotations := map[string]string{
		"io.containerd.image.name":          opts.name,
		"org.opencontainers.image.ref.name": tag(opts.name),
	}
	inner := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, img := range images {
		cfg, err := img.ConfigFile()
		if err != nil {
			return nil, err
		}
		desc := v1.Descriptor{Platform: cfg.Platform()}
		if len(images) == 1 {
			desc.Annotations = annotations
		}
		inner = mutate.AppendManifests(inner, mutate.IndexAddendum{Add: img, Descriptor: desc})
	}
	if len(images) == 1 {
		return inner, nil
	}
	outer := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	return mutate.AppendManifests(outer, mutate.IndexAddendum{Add: inner, Descriptor: v1.Descriptor{Annotations: annotations}}), nil
}

// dockerManifest writes manifest.json, which points to the same blobs.
func dockerManifest(opts options, images []v1.Image) (file, error) {
	img := images[0]
	for _, candidate := range images {
		cfg, err := candidate.ConfigFile()
		if err != nil {
			return file{}, err
		}
		if cfg.Architecture == runtime.GOARCH {
			img = candidate
		}
	}
	manifest, err := img.Manifest()
	if err != nil {
		return file{}, err
	}
	blob := func(h v1.Hash) string { return "blobs/" + h.Algorithm + "/" + h.Hex }
	entry := tarball.Descriptor{Config: blob(manifest.Config.Digest), RepoTags: []string{opts.name}}
	for _, layer := range manifest.Layers {
		entry.Layers = append(entry.Layers, blob(layer.Digest))
	}
	content, err := json.Marshal([]tarball.Descriptor{entry})
	if err != nil {
		return file{}, fmt.Errorf("marshal manifest.json: %w", err)
	}
	return file{path: "manifest.json", mode: 0o644, content: content}, nil
}

// tag returns what stands behind the last colon of an image's name, unless
// that colon belongs to the registry's port.
func tag(name string) string {
	for i := len(name) - 1; i >= 0 && name[i] != '/'; i-- {
		if name[i] == ':' {
			return name[i+1:]
		}
	}
	return "latest"
}
