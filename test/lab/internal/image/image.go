// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package image

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strconv"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Image is a container image of one layer.
type Image struct {
	Tags   []string
	Config v1.Config
	Files  *Files
}

// layer is an uncompressed layer in a file: compressing it would only cost time, on both ends.
type layer struct {
	path string
	hash v1.Hash
	size int64
}

func (l *layer) Digest() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) DiffID() (v1.Hash, error)             { return l.hash, nil }
func (l *layer) Compressed() (io.ReadCloser, error)   { return os.Open(l.path) }
func (l *layer) Uncompressed() (io.ReadCloser, error) { return os.Open(l.path) }
func (l *layer) Size() (int64, error)                 { return l.size, nil }
func (l *layer) MediaType() (types.MediaType, error)  { return types.DockerUncompressedLayer, nil }

func newLayer(path string, files *Files) (*layer, error) {
	out, err := os.Create(path)
	if err != nil {
		return nil, err
	}
	defer out.Close()
	if err := files.Write(out); err != nil {
		return nil, err
	}
	if _, err := out.Seek(0, io.SeekStart); err != nil {
		return nil, err
	}
	hash, size, err := v1.SHA256(out)
	return &layer{path: path, hash: hash, size: size}, err
}

func (i Image) assemble(layerPath string) (v1.Image, error) {
	l, err := newLayer(layerPath, i.Files)
	if err != nil {
		return nil, err
	}
	img, err := mutate.AppendLayers(empty.Image, l)
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Config = "linux", runtime.GOARCH, i.Config
	return mutate.ConfigFile(img, config)
}

// Archive writes images into one file that "ctr images import" and "docker load" read.
func Archive(file string, images []Image) (err error) {
	temp, err := os.MkdirTemp(filepath.Dir(file), ".layers-")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(temp)) }()
	tagged := map[name.Tag]v1.Image{}
	for n, i := range images {
		img, err := i.assemble(filepath.Join(temp, strconv.Itoa(n)))
		if err != nil {
			return fmt.Errorf("make image %s: %w", i.Tags[0], err)
		}
		for _, text := range i.Tags {
			tag, err := name.NewTag(text, name.StrictValidation)
			if err != nil {
				return err
			}
			tagged[tag] = img
		}
	}
	return tarball.MultiWriteToFile(file, tagged)
}
