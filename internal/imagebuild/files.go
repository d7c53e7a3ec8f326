// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"archive/tar"
	"bytes"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// file is a file, link or folder of a layer.
type file struct {
	path    string // without a slash in front
	mode    fs.FileMode
	link    string // target, if the file is a symbolic link
	content []byte
}

// skeleton is what programs expect to find in a root file system.
func skeleton() []file {
	text := func(name, content string) file { return file{path: name, mode: 0o644, content: []byte(content)} }
	files := []file{
		text("etc/passwd", "root:x:0:0:root:/:/nonexistent\nsealane:x:65532:65532:sealane:/:/nonexistent\n"),
		text("etc/group", "root:x:0:\nsealane:x:65532:\n"),
		text("etc/nsswitch.conf", "hosts: files dns\nprotocols: files\nservices: files\n"),
		{path: "tmp", mode: fs.ModeDir | fs.ModeSticky | 0o777},
		{path: "run", mode: fs.ModeDir | 0o755},
		{path: "var/run", mode: fs.ModeSymlink | 0o777, link: "/run"},
	}
	// Libraries are put below usr alone, wherever the package had them.
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		files = append(files, file{path: dir, mode: fs.ModeSymlink | 0o777, link: "usr/" + dir})
	}
	return files
}

// matching reads the regular files that match any of the patterns of fs.Glob.
func matching(root *os.Root, patterns ...string) ([]file, error) {
	var files []file
	for _, pattern := range patterns {
		names, err := fs.Glob(root.FS(), pattern)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			f, err := read(root, name)
			if err != nil {
				return nil, err
			}
			files = append(files, f)
		}
	}
	return files, nil
}

func read(root *os.Root, name string) (file, error) {
	content, err := root.ReadFile(name)
	if err != nil {
		return file{}, err
	}
	info, err := root.Stat(name)
	if err != nil {
		return file{}, err
	}
	mode := fs.FileMode(0o644)
	if info.Mode()&0o111 != 0 {
		mode = 0o755
	}
	return file{path: name, mode: mode, content: content}, nil
}

// archive writes files as a tar: sorted, with the folders that they are in,
// owned by root, all of the same date.
func archive(w io.Writer, files []file, date time.Time) error {
	all := map[string]file{}
	for _, f := range files {
		for dir := path.Dir(f.path); dir != "."; dir = path.Dir(dir) {
			if _, ok := all[dir]; !ok {
				all[dir] = file{path: dir, mode: fs.ModeDir | 0o755}
			}
		}
		all[f.path] = f
	}
	out := tar.NewWriter(w)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if err := all[name].writeTo(out, date); err != nil {
			return err
		}
	}
	return out.Close()
}

func (f file) writeTo(out *tar.Writer, date time.Time) error {
	header := &tar.Header{
		Name: f.path, Linkname: f.link, Mode: int64(f.mode.Perm()), Size: int64(len(f.content)),
		Typeflag: tar.TypeReg, ModTime: date, Format: tar.FormatPAX,
	}
	switch {
	case f.mode.IsDir():
		header.Typeflag, header.Name = tar.TypeDir, strings.TrimSuffix(f.path, "/")+"/"
		if f.mode&fs.ModeSticky != 0 {
			header.Mode |= 0o1000
		}
	case f.mode&fs.ModeSymlink != 0:
		header.Typeflag = tar.TypeSymlink
	}
	if err := out.WriteHeader(header); err != nil {
		return err
	}
	_, err := io.Copy(out, bytes.NewReader(f.content))
	return err
}
