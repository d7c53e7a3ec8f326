// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package image

import (
	"archive/tar"
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func sample(t *testing.T) *Files {
	t.Helper()
	source := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(source, []byte("binary"), 0o600); err != nil {
		t.Fatal(err)
	}
	f := &Files{}
	f.Link("bin/sh", "bash")
	f.Copy("/usr/bin/bash", source, 0o755)
	f.Text("etc/passwd", "root\n")
	f.Dir("tmp", 0o1777)
	return f
}

func listing(t *testing.T, archive io.Reader) []string {
	t.Helper()
	var lines []string
	for r := tar.NewReader(archive); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return lines
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		lines = append(lines, h.FileInfo().Mode().String()+" "+h.Name+" "+h.Linkname+string(content))
	}
}

// Directories come before what is in them, though nobody named them.
func TestWrite(t *testing.T) {
	f := sample(t)
	var one, two bytes.Buffer
	if err := errors.Join(f.Write(&one), f.Write(&two)); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(one.Bytes(), two.Bytes()) {
		t.Error("the same files gave different archives")
	}
	want := []string{
		"drwxr-xr-x bin/ ",
		"Lrwxrwxrwx bin/sh bash",
		"drwxr-xr-x etc/ ",
		"-rw-r--r-- etc/passwd root\n",
		"dtrwxrwxrwx tmp/ ",
		"drwxr-xr-x usr/ ",
		"drwxr-xr-x usr/bin/ ",
		"-rwxr-xr-x usr/bin/bash binary",
	}
	if diff := cmp.Diff(want, listing(t, &one)); diff != "" {
		t.Error(diff)
	}
}

func TestWriteMissingFile(t *testing.T) {
	f := &Files{}
	f.Copy("a", "/does/not/exist", 0o644)
	if err := f.Write(io.Discard); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestArchive(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "images.tar")
	const first, second = "registry.k8s.io/a:1", "registry.k8s.io/b/c:2"
	err := Archive(file, []Image{{Tags: []string{first, second}, Files: sample(t), Config: v1.Config{Entrypoint: []string{"/bin/sh"}, User: "65535"}}})
	if err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{first, second} {
		tag, err := name.NewTag(text)
		if err != nil {
			t.Fatal(err)
		}
		img, err := tarball.ImageFromPath(file, &tag)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		if err := validate.Image(img); err != nil {
			t.Errorf("%s: %v", text, err)
		}
		config, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if config.OS != "linux" || config.Config.User != "65535" || config.Config.Entrypoint[0] != "/bin/sh" {
			t.Errorf("%s: config %+v", text, config)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left beside the archive: %v %v", left, err)
	}
}

func TestArchiveRefusesBadTag(t *testing.T) {
	if err := Archive(filepath.Join(t.TempDir(), "x.tar"), []Image{{Tags: []string{"Not A Tag"}, Files: &Files{}}}); err == nil {
		t.Error("no error")
	}
}

// Upstream's tests look for these in the image, whatever else it is made of.
func TestBaseKnowsTheUsersOfTests(t *testing.T) {
	var out bytes.Buffer
	if err := base().Write(&out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"user-defined-in-image:x:1000:", "group-defined-in-image:x:50000:"} {
		if !bytes.Contains(out.Bytes(), []byte(want)) {
			t.Errorf("no %s", want)
		}
	}
}

func TestLibraries(t *testing.T) {
	const ldd = "\tlinux-vdso.so.1 (0x00007ffd)\n\tlibc.so.6 => /lib/x86_64-linux-gnu/libc.so.6 (0x00007f)\n\t/lib64/ld-linux-x86-64.so.2 (0x00007f)\n"
	var got []string
	for _, m := range libraries.FindAllStringSubmatch(ldd, -1) {
		got = append(got, m[1])
	}
	if diff := cmp.Diff([]string{"/lib/x86_64-linux-gnu/libc.so.6", "/lib64/ld-linux-x86-64.so.2"}, got); diff != "" {
		t.Error(diff)
	}
}
