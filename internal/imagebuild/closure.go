// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"strings"
)

// errNoLibrary says that a program needs a library that its packages lack.
var errNoLibrary = errors.New("library not found")

// triplets are Debian's names of the architectures for folders of libraries.
var triplets = map[string]string{"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}

// closure returns a program, its loader and every library that it needs,
// directly or through another, each below usr as in a merged-usr system. It
// reads ELF headers, so the program may be of another architecture.
func closure(root *os.Root, program, triplet string) ([]file, error) {
	f, err := read(root, program)
	if err != nil {
		return nil, err
	}
	files := []file{f}
	seen := map[string]bool{}
	for i := 0; i < len(files); i++ {
		loader, libraries, err := needs(files[i].content)
		if err != nil {
			return nil, fmt.Errorf("read %s: %w", files[i].path, err)
		}
		for _, name := range libraries {
			if seen[name] {
				continue
			}
			seen[name] = true
			lib, err := library(root, name, triplet)
			if err != nil {
				return nil, fmt.Errorf("%s needs %s: %w", files[i].path, name, err)
			}
			files = append(files, lib)
		}
		if loader == "" || seen[loader] {
			continue
		}
		seen[loader] = true
		lib, err := library(root, path.Base(loader), triplet)
		if err != nil {
			return nil, fmt.Errorf("%s needs %s: %w", files[i].path, loader, err)
		}
		// The kernel looks for it under exactly this path.
		lib.path = path.Join("usr", strings.TrimPrefix(strings.TrimPrefix(loader, "/"), "usr/"))
		files = append(files, lib)
	}
	return files, nil
}

// needs reads an ELF file's interpreter and the names of its libraries.
func needs(content []byte) (loader string, libraries []string, err error) {
	f, err := elf.NewFile(bytes.NewReader(content))
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			name := make([]byte, p.Filesz)
			if _, err := p.ReadAt(name, 0); err != nil {
				return "", nil, err
			}
			loader = string(bytes.TrimRight(name, "\x00"))
		}
	}
	libraries, err = f.ImportedLibraries()
	return loader, libraries, err
}

// library finds a library by its soname. Links are followed: the image holds
// one regular file under the name that is asked for.
func library(root *os.Root, name, triplet string) (file, error) {
	for _, dir := range []string{"usr/lib/" + triplet, "lib/" + triplet, "usr/lib", "lib"} {
		f, err := read(root, path.Join(dir, name))
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return file{}, err
		}
		f.path = path.Join("usr/lib", triplet, name)
		return f, nil
	}
	return file{}, errNoLibrary
}
