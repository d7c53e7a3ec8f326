// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"go/ast"
	"go/parser"
	"go/token"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// The rules are code too: each one that decides something is shown here what
// it must find and what it must leave alone.

func sample(t *testing.T, src string) source {
	t.Helper()
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "sample.go", "package sample\n"+src, parser.ParseComments)
	if err != nil {
		t.Fatal(err)
	}
	return source{path: "sample.go", pkg: "sample", fset: fset, file: file}
}

func TestChangedGlobals(t *testing.T) {
	s := sample(t, `
var table = map[string]int{"a": 1}
func f(local int) {
	table["b"] = 2
	elsewhere++
	delete(table, "a")
	g(&other.field)
	local = 3
	shadow := table
	shadow["c"] = 4
}`)
	var got []string
	for _, id := range changed(s) {
		got = append(got, id.Name)
	}
	if diff := cmp.Diff([]string{"table", "elsewhere", "table", "other"}, got); diff != "" {
		t.Errorf("changed (-want +got):\n%s", diff)
	}
}

func TestIsState(t *testing.T) {
	for src, want := range map[string]bool{
		`var x int`:                                   true,
		`var x = make(map[string]int)`:                true,
		`var x sync.Mutex`:                            true,
		`var x = &sync.Once{}`:                        true,
		`var x = errors.New("no")`:                    false,
		`var x = regexp.MustCompile("a")`:             false,
		`var x = []string{"a"}`:                       false,
		`var x = func() []int { return make([]int) }`: false,
	} {
		decl := sample(t, src).file.Decls[0].(*ast.GenDecl)
		if got := isState(decl.Specs[0].(*ast.ValueSpec)); got != want {
			t.Errorf("isState(%s) = %v, want %v", src, got, want)
		}
	}
}

func TestReach(t *testing.T) {
	graph := map[string][]string{
		module + "a": {"fmt", module + "b"},
		module + "b": {"k8s.io/client-go/rest", module + "a"},
	}
	want := map[string]string{
		"fmt": "by a", module + "b": "by a", module + "a": "by b", "k8s.io/client-go/rest": "by b",
	}
	if diff := cmp.Diff(want, reach(graph, module+"a")); diff != "" {
		t.Errorf("reach (-want +got):\n%s", diff)
	}
	for lib, want := range map[string]bool{"k8s.io/": true, "k8s.io/client-go": true, "k8s.io/client": false} {
		if got := within("k8s.io/client-go/rest", lib); got != want {
			t.Errorf("within(k8s.io/client-go/rest, %s) = %v", lib, got)
		}
	}
}

func TestCommands(t *testing.T) {
	text := "Run `make no`.\n```sh\nmake demo\n$ make test LANE=vxlan\n```\nmake neither\n```yaml\nmake: no\n```\n"
	if diff := cmp.Diff([]string{"make demo", "$ make test LANE=vxlan"}, commands(text)); diff != "" {
		t.Errorf("commands (-want +got):\n%s", diff)
	}
	if m := makeCall.FindStringSubmatch("$ DUAL=1 make demo # three nodes"); m == nil || m[1] != " demo " {
		t.Errorf("makeCall found %q", m)
	}
}

func TestUnwanted(t *testing.T) {
	for text, want := range map[string]bool{
		"see /ho" + "me/me/x":      true,
		"TO" + "DO: later":         true,
		"<<<<<<< ours":             true,
		"https://x.example/home/x": false,
		"a todo list":              false,
	} {
		found := false
		for _, u := range unwanted {
			found = found || u.pattern.MatchString(text)
		}
		if found != want {
			t.Errorf("%q: unwanted = %v, want %v", text, found, want)
		}
	}
}

func TestComment(t *testing.T) {
	for name, want := range map[string]string{
		"a/b.go": "// %s\n", "bpf/src/a.h": "/* %s */\n", "a/testdata/b.go": "", "Makefile": "# %s\n", "a.md": "",
	} {
		if got := comment(name, nil); got != want {
			t.Errorf("comment(%s) = %q, want %q", name, got, want)
		}
	}
	if got := comment("test/run", []byte("#!/bin/sh\n")); got != "# %s\n" {
		t.Errorf("a script without an extension: %q", got)
	}
}
