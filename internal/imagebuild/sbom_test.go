// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"debug/buildinfo"
	"encoding/json"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestComponents: Debian's packages and the modules of this very program are found, and
// nothing else is taken for one of them.
func TestComponents(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program, err := os.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	record := "Package: libgmp10\nSource: gmp\nVersion: 2:6.2.1+dfsg1-1.1\nArchitecture: arm64\nDescription: numbers\n Version: 9\n"
	got, err := components(testOptions(t), [][]file{
		{{path: "var/lib/dpkg/status.d/libgmp10", content: []byte(record)}, {path: "usr/sbin/nft", content: []byte("\x7fELF")}},
		{{path: "usr/bin/x", content: program}, {path: "usr/bin/script", content: []byte("#!/bin/sh")}},
	})
	if err != nil {
		t.Fatal(err)
	}
	want := component{"libgmp10", "2:6.2.1+dfsg1-1.1", "pkg:deb/debian/libgmp10@2%3A6.2.1%2Bdfsg1-1.1?arch=arm64", "Organization: Debian"}
	if got[0] != want {
		t.Errorf("package is %+v", got[0])
	}
	info, err := buildinfo.ReadFile(self)
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, c := range got[1:] {
		found[c.name] = c.version
	}
	if found["stdlib"] != strings.TrimPrefix(info.GoVersion, "go") || found["github.com/google/go-containerregistry"] == "" {
		t.Errorf("found %v", found)
	}
	for _, d := range info.Deps {
		if found[d.Path] != d.Version {
			t.Errorf("%s is %q, want %s", d.Path, found[d.Path], d.Version)
		}
	}
	if _, err := components(testOptions(t), [][]file{{{path: "usr/bin/c", content: []byte("\x7fELF of no Go program")}}}); err == nil || !strings.Contains(err.Error(), "usr/bin/c") {
		t.Errorf("a program whose modules cannot be known: %v", err)
	}
}

// TestBill: every component is listed once, as part of the image with the archive's digest.
func TestBill(t *testing.T) {
	a := component{name: "a", version: "1", purl: "pkg:golang/a@1"}
	b := component{name: "b", version: "2", purl: "pkg:golang/b@2"}
	var first []byte
	for _, parts := range [][]component{{a, b, a}, {b, a}} {
		text, err := bill(testOptions(t), parts, [32]byte{0xab})
		if err != nil {
			t.Fatal(err)
		}
		if first != nil && !bytes.Equal(first, text) {
			t.Error("the order of the components matters")
		}
		first = text
	}
	var doc spdxDocument
	if err := json.Unmarshal(first, &doc); err != nil {
		t.Fatal(err)
	}
	var got []string
	ids := map[string]string{doc.ID: "document"}
	for _, p := range doc.Packages {
		ids[p.ID] = p.Name
	}
	for _, r := range doc.Relationships {
		got = append(got, ids[r.From]+" "+r.Type+" "+ids[r.To])
	}
	image := doc.Packages[0]
	want := []string{"document DESCRIBES " + image.Name, image.Name + " CONTAINS a", image.Name + " CONTAINS b"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("relationships (-want +got):\n%s", diff)
	}
	if len(image.Checksums) != 1 || image.Checksums[0].Value != "ab"+strings.Repeat("00", 31) {
		t.Errorf("digest of the archive: %+v", image.Checksums)
	}
}
