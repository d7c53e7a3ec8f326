// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package image makes container images from files, without a container engine or a registry.
package image

import (
	"archive/tar"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"time"
)

// Files is the content of an image's only layer. The zero value is empty.
type Files struct {
	entries map[string]entry // by path without leading slash
}

type entry struct {
	source  string // file to copy, "" for content
	content []byte
	link    string // target of a symbolic link
	mode    int64
	dir     bool
}

func (f *Files) put(name string, e entry) {
	if f.entries == nil {
		f.entries = map[string]entry{}
	}
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	for parent := path.Dir(name); parent != "."; parent = path.Dir(parent) {
		if _, ok := f.entries[parent]; !ok {
			f.entries[parent] = entry{dir: true, mode: 0o755}
		}
	}
	f.entries[name] = e
}

// Has reports whether something has the path name.
func (f *Files) Has(name string) bool {
	_, ok := f.entries[strings.TrimPrefix(name, "/")]
	return ok
}

// Dir adds a directory.
func (f *Files) Dir(name string, mode int64) { f.put(name, entry{dir: true, mode: mode}) }

// Text adds a file with the given content.
func (f *Files) Text(name, content string) { f.put(name, entry{content: []byte(content), mode: 0o644}) }

// Link adds a symbolic link.
func (f *Files) Link(name, target string) { f.put(name, entry{link: target, mode: 0o777}) }

// Copy adds a file of the machine, with the given mode.
func (f *Files) Copy(name, source string, mode int64) { f.put(name, entry{source: source, mode: mode}) }

// Write writes the files as a tar archive: the same files give the same bytes, always.
func (f *Files) Write(out io.Writer) error {
	archive := tar.NewWriter(out)
	for _, name := range slices.Sorted(maps.Keys(f.entries)) {
		if err := f.entries[name].write(archive, name); err != nil {
			return fmt.Errorf("add %s: %w", name, err)
		}
	}
	return archive.Close()
}

func (e entry) write(archive *tar.Writer, name string) error {
	header := &tar.Header{Name: name, Mode: e.mode, ModTime: time.Unix(0, 0), Format: tar.FormatPAX}
	switch {
	case e.dir:
		header.Typeflag, header.Name = tar.TypeDir, name+"/"
		return archive.WriteHeader(header)
	case e.link != "":
		header.Typeflag, header.Linkname = tar.TypeSymlink, e.link
		return archive.WriteHeader(header)
	case e.source != "":
		return e.copy(archive, header)
	}
	header.Typeflag, header.Size = tar.TypeReg, int64(len(e.content))
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err := archive.Write(e.content)
	return err
}

func (e entry) copy(archive *tar.Writer, header *tar.Header) error {
	file, err := os.Open(e.source)
	if err != nil {
		return err
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		return err
	}
	header.Typeflag, header.Size = tar.TypeReg, info.Size()
	if err := archive.WriteHeader(header); err != nil {
		return err
	}
	_, err = io.Copy(archive, file)
	return err
}
