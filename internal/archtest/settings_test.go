// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"bytes"
	"io/fs"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// development is the page with the tables of targets and settings.
const development = "docs/development.md"

var (
	ourVariable  = regexp.MustCompile(`\bSEALANE_[A-Z0-9_]*[A-Z0-9]\b`)
	makeVariable = regexp.MustCompile(`(?m)\$\(([A-Z][A-Z_]+)\)|^(?:export )?([A-Z][A-Z_]+) [?:]=`)
	quoted       = regexp.MustCompile("`([^`]+)`")
)

// named returns the words in backquotes in the first column of the table below a heading of the page.
func named(t *testing.T, heading string) []string {
	t.Helper()
	_, section, found := strings.Cut(documents(t)[development], "\n## "+heading+"\n")
	if !found {
		t.Fatalf("%s has no section %s", development, heading)
	}
	section, _, _ = strings.Cut(section, "\n## ")
	var names []string
	for line := range strings.Lines(section) {
		if cells := strings.Split(line, "|"); len(cells) > 2 {
			names = append(names, firstGroups(quoted, cells[1])...)
		}
	}
	if len(names) == 0 {
		t.Fatalf("%s: the section %s has no table", development, heading)
	}
	return names
}

// same wants a table to name each of what there is, once, and nothing else.
func same(t *testing.T, table, there []string) {
	t.Helper()
	table, there = slices.Sorted(slices.Values(table)), slices.Sorted(slices.Values(there))
	for _, name := range there {
		if !slices.Contains(table, name) {
			t.Errorf("%s does not name %s", development, name)
		}
	}
	for i, name := range table {
		if !slices.Contains(there, name) {
			t.Errorf("%s names %s, which nothing in the repository uses", development, name)
		}
		if i > 0 && table[i-1] == name {
			t.Errorf("%s names %s twice", development, name)
		}
	}
}

func TestTargetsAreDocumented(t *testing.T) {
	var targets []string
	for _, name := range firstGroups(target, makefile(t)) {
		targets = append(targets, "make "+name)
	}
	same(t, named(t, "Targets"), targets)
}

// TestSettingsAreDocumented compares the table of settings with what scripts and Go files read. A name that does not
// begin with SEALANE_ is one if the Makefile uses it; the table may name others that a script reads.
func TestSettingsAreDocumented(t *testing.T) {
	used, scripts := map[string]bool{}, ""
	err := walk(func(name string) error {
		text, err := fs.ReadFile(root(), name)
		if err != nil {
			return err
		}
		script := bytes.HasPrefix(text, []byte("#!")) || bytes.HasPrefix(text, []byte("# shellcheck shell="))
		if path.Ext(name) != ".go" && !script || path.Dir(name) == "internal/archtest" {
			return nil
		}
		for _, variable := range ourVariable.FindAllString(string(text), -1) {
			used[variable] = true
		}
		if script {
			scripts += string(text)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range makeVariable.FindAllStringSubmatch(makefile(t), -1) {
		if name := m[1] + m[2]; !slices.Contains([]string{"MAKEFILE_LIST", "SHELL"}, name) {
			used[name] = true
		}
	}
	table := named(t, "Settings")
	for _, name := range table {
		if !strings.HasPrefix(name, "SEALANE_") && strings.Contains(scripts, "${"+name+":") {
			used[name] = true
		}
	}
	same(t, table, slices.Collect(maps.Keys(used)))
}
