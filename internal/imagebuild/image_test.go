// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func testOptions(t *testing.T) options {
	t.Helper()
	opts, err := parse([]string{"-name", "example.org:5000/sealane:v1", "-version", "v1.2", "-out", filepath.Join(t.TempDir(), "image.tar")}, "1700000000")
	if err != nil {
		t.Fatal(err)
	}
	return opts
}

func TestParse(t *testing.T) {
	for _, tc := range []struct{ args, epoch, want string }{
		{args: "-platforms=linux/riscv64", want: `platform "linux/riscv64"`},
		{args: "-platforms=", want: "-platforms is empty"},
		{epoch: "yesterday", want: `SOURCE_DATE_EPOCH "yesterday"`},
		{args: "-nonsense", want: "not defined"},
	} {
		_, err := parse(strings.Fields(tc.args), tc.epoch)
		if err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("parse(%q, %q) = %v, want an error with %q", tc.args, tc.epoch, err, tc.want)
		}
	}
	opts, err := parse([]string{"-platforms", "linux/amd64  linux/arm64"}, "")
	if err != nil || len(opts.platforms) != 2 || opts.date.Unix() != 0 {
		t.Errorf("parse = %+v, %v; want two platforms and the epoch", opts, err)
	}
}

func TestTag(t *testing.T) {
	for name, want := range map[string]string{
		"a/b:v1": "v1", "host:5000/b": "latest", "host:5000/b:v2": "v2", "b": "latest",
	} {
		if got := tag(name); got != want {
			t.Errorf("tag(%s) = %s, want %s", name, got, want)
		}
	}
}

func TestArchiveIsSortedAndDated(t *testing.T) {
	date := time.Unix(1700000000, 0)
	files := []file{
		{path: "usr/bin/b", mode: 0o755, content: []byte("b")},
		{path: "lib", mode: fs.ModeSymlink | 0o777, link: "usr/lib"},
		{path: "tmp", mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{path: "etc/a", mode: 0o644, content: []byte("a")},
	}
	var got []string
	for _, order := range [][]file{files, {files[3], files[2], files[1], files[0]}} {
		got = nil
		var buf bytes.Buffer
		if err := archive(&buf, order, date); err != nil {
			t.Fatal(err)
		}
		for r := tar.NewReader(&buf); ; {
			h, err := r.Next()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			if !h.ModTime.Equal(date) || h.Uid != 0 || h.Gid != 0 {
				t.Errorf("%s: date %v, owner %d:%d", h.Name, h.ModTime, h.Uid, h.Gid)
			}
			got = append(got, h.FileInfo().Mode().String()+" "+h.Name)
		}
		want := []string{
			"drwxr-xr-x etc/", "-rw-r--r-- etc/a", "Lrwxrwxrwx lib", "dtrwxrwxrwx tmp/",
			"drwxr-xr-x usr/", "drwxr-xr-x usr/bin/", "-rwxr-xr-x usr/bin/b",
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("archive (-want +got):\n%s", diff)
		}
	}
}

func testImage(t *testing.T, opts options, arch string) v1.Image {
	t.Helper()
	img, err := assemble(opts, arch, [][]file{skeleton(), {{path: "usr/bin/x", mode: 0o755, content: []byte(arch)}}})
	if err != nil {
		t.Fatal(err)
	}
	return img
}

func TestWriteIsReadByDockerTools(t *testing.T) {
	opts := testOptions(t)
	if err := write(opts, []v1.Image{testImage(t, opts, "amd64")}, t.TempDir()); err != nil {
		t.Fatal(err)
	}
	ref, err := name.NewTag(opts.name)
	if err != nil {
		t.Fatal(err)
	}
	img, err := tarball.ImageFromPath(opts.out, &ref)
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Image(img); err != nil {
		t.Error(err)
	}
	cfg, err := img.ConfigFile()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.Architecture != "amd64" || cfg.Config.Labels["org.opencontainers.image.version"] != "v1.2" || cfg.Created.Unix() != 1700000000 {
		t.Errorf("config is %+v", cfg)
	}
}

func TestWriteIsReadByOCITools(t *testing.T) {
	for _, archs := range [][]string{{"amd64"}, {"amd64", "arm64"}} {
		t.Run(strings.Join(archs, "+"), func(t *testing.T) {
			opts := testOptions(t)
			var images []v1.Image
			for _, arch := range archs {
				images = append(images, testImage(t, opts, arch))
			}
			if err := write(opts, images, t.TempDir()); err != nil {
				t.Fatal(err)
			}
			index, err := layout.ImageIndexFromPath(unpack(t, opts.out))
			if err != nil {
				t.Fatal(err)
			}
			if err := validate.Index(index); err != nil {
				t.Error(err)
			}
			manifest, err := index.IndexManifest()
			if err != nil {
				t.Fatal(err)
			}
			if len(manifest.Manifests) != 1 || manifest.Manifests[0].Annotations["io.containerd.image.name"] != opts.name {
				t.Errorf("the outer index does not name one image %s: %+v", opts.name, manifest.Manifests)
			}
		})
	}
}

func TestWriteIsReproducible(t *testing.T) {
	var first []byte
	for range 2 {
		opts := testOptions(t)
		if err := write(opts, []v1.Image{testImage(t, opts, "arm64")}, t.TempDir()); err != nil {
			t.Fatal(err)
		}
		got, err := os.ReadFile(opts.out)
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, got) {
			t.Error("two archives of the same files differ")
		}
		first = got
	}
}

// unpack puts the regular files of a tar into a folder.
func unpack(t *testing.T, name string) string {
	t.Helper()
	in, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	dir := t.TempDir()
	for r := tar.NewReader(in); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return dir
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		place(t, dir, file{path: h.Name, mode: h.FileInfo().Mode(), link: h.Linkname, content: content})
	}
}

// place puts one file of a layer below dir.
func place(t *testing.T, dir string, f file) {
	t.Helper()
	name := filepath.Join(dir, f.path)
	if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
		t.Fatal(err)
	}
	var err error
	switch {
	case f.mode.IsDir():
		err = os.MkdirAll(name, 0o755)
	case f.mode&fs.ModeSymlink != 0:
		err = os.Symlink(f.link, name)
	default:
		err = os.WriteFile(name, f.content, f.mode.Perm())
	}
	if err != nil {
		t.Fatal(err)
	}
}
