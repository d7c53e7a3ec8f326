// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"crypto/sha256"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"net/url"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
)

// component is a part of the image that somebody publishes under a version.
type component struct {
	name, version string
	purl          string // https://github.com/package-url/purl-spec
	supplier      string
}

// components returns what the files of one architecture are made of: Debian's packages, by
// the records that the image keeps of them, and the Go modules and the Go release of each
// program, by what the compiler writes into it.
func components(opts options, layers [][]file) ([]component, error) {
	var all []component
	for _, f := range slices.Concat(layers...) {
		switch {
		case path.Dir(f.path) == "var/lib/dpkg/status.d":
			all = append(all, debianPackage(f.content))
		case bytes.HasPrefix(f.content, []byte("\x7fELF")) && (path.Dir(f.path) == programDir || path.Dir(f.path) == pluginDir):
			modules, err := goModules(opts, f)
			if err != nil {
				return nil, err
			}
			all = append(all, modules...)
		}
	}
	return all, nil
}

func debianPackage(record []byte) component {
	field := func(name string) string {
		m := regexp.MustCompile(`(?m)^` + name + `: (.*)$`).FindSubmatch(record)
		if m == nil {
			return ""
		}
		return string(m[1])
	}
	c := component{name: field("Package"), version: field("Version"), supplier: "Organization: Debian"}
	c.purl = fmt.Sprintf("pkg:deb/debian/%s@%s?arch=%s", url.QueryEscape(c.name), url.QueryEscape(c.version), field("Architecture"))
	return c
}

func goModules(opts options, f file) ([]component, error) {
	info, err := buildinfo.Read(bytes.NewReader(f.content))
	if err != nil {
		return nil, fmt.Errorf("read the modules of %s: %w", f.path, err)
	}
	module := func(name, version string) component {
		return component{name: name, version: version, purl: "pkg:golang/" + name + "@" + url.QueryEscape(version)}
	}
	all := []component{module("stdlib", strings.TrimPrefix(info.GoVersion, "go"))}
	if strings.HasSuffix(info.Main.Path, "/sealane") {
		all = append(all, module(info.Main.Path, opts.version))
	}
	for _, d := range info.Deps {
		if d.Replace != nil {
			d = d.Replace
		}
		all = append(all, module(d.Path, d.Version))
	}
	return all, nil
}

// The parts of SPDX 2.3 (https://spdx.github.io/spdx-spec/v2.3) that are written.
type (
	spdxDocument struct {
		Version       string             `json:"spdxVersion"`
		License       string             `json:"dataLicense"`
		ID            string             `json:"SPDXID"`
		Name          string             `json:"name"`
		Namespace     string             `json:"documentNamespace"`
		Creation      spdxCreation       `json:"creationInfo"`
		Packages      []spdxPackage      `json:"packages"`
		Relationships []spdxRelationship `json:"relationships"`
	}
	spdxCreation struct {
		Created  string   `json:"created"`
		Creators []string `json:"creators"`
	}
	spdxPackage struct {
		ID            string          `json:"SPDXID"`
		Name          string          `json:"name"`
		Version       string          `json:"versionInfo,omitempty"`
		Supplier      string          `json:"supplier,omitempty"`
		Download      string          `json:"downloadLocation"`
		FilesAnalyzed bool            `json:"filesAnalyzed"`
		Checksums     []spdxChecksum  `json:"checksums,omitempty"`
		References    []spdxReference `json:"externalRefs,omitempty"`
	}
	spdxChecksum struct {
		Algorithm string `json:"algorithm"`
		Value     string `json:"checksumValue"`
	}
	spdxReference struct {
		Category string `json:"referenceCategory"`
		Type     string `json:"referenceType"`
		Locator  string `json:"referenceLocator"`
	}
	spdxRelationship struct {
		From string `json:"spdxElementId"`
		Type string `json:"relationshipType"`
		To   string `json:"relatedSpdxElement"`
	}
)

// bill lists what is in the archive, which has that SHA-256. It is the same for the same
// archive.
func bill(opts options, parts []component, archive [sha256.Size]byte) ([]byte, error) {
	const document, image, unknown = "SPDXRef-DOCUMENT", "SPDXRef-Image", "NOASSERTION"
	sum := fmt.Sprintf("%x", archive)
	doc := spdxDocument{
		Version: "SPDX-2.3", License: "CC0-1.0", ID: document, Name: opts.name,
		Namespace: "https://github.com/sealane/sealane/sbom/" + sum,
		Creation:  spdxCreation{Created: opts.date.Format("2006-01-02T15:04:05Z"), Creators: []string{"Tool: sealane-imagebuild"}},
		Packages: []spdxPackage{{
			ID: image, Name: opts.name, Version: opts.version, Download: unknown,
			Checksums: []spdxChecksum{{"SHA256", sum}},
		}},
		Relationships: []spdxRelationship{{document, "DESCRIBES", image}},
	}
	slices.SortFunc(parts, func(a, b component) int { return strings.Compare(a.purl, b.purl) })
	for i, c := range slices.Compact(parts) {
		p := spdxPackage{
			ID: fmt.Sprintf("SPDXRef-%d", i+1), Name: c.name, Version: c.version, Supplier: c.supplier, Download: unknown,
			References: []spdxReference{{"PACKAGE-MANAGER", "purl", c.purl}},
		}
		doc.Packages = append(doc.Packages, p)
		doc.Relationships = append(doc.Relationships, spdxRelationship{image, "CONTAINS", p.ID})
	}
	return json.MarshalIndent(doc, "", "  ")
}

// writeBill writes the bill of the archive beside it.
func writeBill(opts options, parts []component) error {
	data, err := os.ReadFile(opts.out)
	if err != nil {
		return err
	}
	text, err := bill(opts, parts, sha256.Sum256(data))
	if err != nil {
		return err
	}
	return os.WriteFile(opts.bill(), append(text, '\n'), 0o644)
}

// bill is the path of the list of what is in the image.
func (o options) bill() string { return strings.TrimSuffix(o.out, path.Ext(o.out)) + ".spdx.json" }
