// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"bytes"
	"go/ast"
	"io/fs"
	"path"
	"slices"
	"strings"
	"testing"
)

// The budgets. Raising one is a decision to be written into the commit.
const (
	maxFile         = 550  // lines
	maxFileP90      = 300  // lines, 90 of 100 files
	maxPackage      = 1500 // lines without tests
	maxFunctionP90  = 25   // lines, 90 of 100 functions
	longFunction    = 50   // lines
	maxLongPercent  = 3    // percent of functions that are longer than longFunction
	maxParameters   = 4    // without the context
	maxMethods      = 4    // of an interface
	maxMakefileSize = 80   // lines
)

// wideInterfaces lists the interfaces that may have more methods, and why.
var wideInterfaces = map[string]string{
	"hostnet.links": "what it uses of internal/nl; the fake stands beside it",
}

// widePackages lists the packages that may have more lines, and why.
var widePackages = map[string]struct {
	lines int
	why   string
}{
	"keymgr": {3100, "a PeerKey can be made here only, so the format and its verifier have to live here"},
}

func lines(src []byte) int { return bytes.Count(src, []byte("\n")) }

func TestFileSize(t *testing.T) {
	var sizes []int
	err := walk(func(name string) error {
		if !slices.Contains([]string{".go", ".c", ".h"}, path.Ext(name)) {
			return nil
		}
		src, err := fs.ReadFile(root(), name)
		if err != nil || bytes.Contains(head(src), []byte("DO NOT EDIT")) || strings.Contains(name, "zz_generated") {
			return err
		}
		sizes = append(sizes, lines(src))
		if lines(src) > maxFile {
			t.Errorf("%s has %d lines, more than %d: does it still have one subject?", name, lines(src), maxFile)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if p90 := percentile90(sizes); p90 > maxFileP90 {
		t.Errorf("nine of ten files have up to %d lines, more than %d", p90, maxFileP90)
	}
}

func TestPackageSize(t *testing.T) {
	sizes := map[string]int{}
	for _, s := range sources(t, written) {
		sizes[s.pkg] += lines(s.src)
	}
	for pkg, n := range sizes {
		if limit := max(maxPackage, widePackages[pkg].lines); n > limit {
			t.Errorf("%s has %d lines, more than %d: which part could stand alone?", pkg, n, limit)
		}
	}
}

func TestFunctionSize(t *testing.T) {
	var sizes []int
	var long []string
	for _, s := range sources(t, written) {
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok {
				continue
			}
			n := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
			sizes = append(sizes, n)
			if n > longFunction {
				long = append(long, s.pos(fn)+" "+fn.Name.Name)
			}
		}
	}
	if p90 := percentile90(sizes); p90 > maxFunctionP90 {
		t.Errorf("nine of ten functions have up to %d lines, more than %d", p90, maxFunctionP90)
	}
	if len(long)*100 > maxLongPercent*len(sizes) {
		t.Errorf("%d of %d functions have more than %d lines:\n%s", len(long), len(sizes), longFunction, strings.Join(long, "\n"))
	}
}

func percentile90(sizes []int) int {
	slices.Sort(sizes)
	return sizes[len(sizes)*9/10]
}

func TestParameters(t *testing.T) {
	for _, s := range sources(t, written) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			if fn, ok := n.(*ast.FuncType); ok {
				checkParameters(t, s, fn)
			}
			return true
		})
	}
}

func checkParameters(t *testing.T, s source, fn *ast.FuncType) {
	t.Helper()
	count, bools := 0, 0
	for _, field := range fn.Params.List {
		if sel, ok := field.Type.(*ast.SelectorExpr); ok && (sel.Sel.Name == "Context" || isIdent(sel.X, "testing")) {
			continue
		}
		names := max(1, len(field.Names))
		count += names
		if isIdent(field.Type, "bool") {
			bools += names
		}
	}
	if count > maxParameters {
		t.Errorf("%s: %d parameters beside the context, more than %d; name them in a struct", s.pos(fn), count, maxParameters)
	}
	if bools > 1 {
		t.Errorf("%s: two bool parameters cannot be told apart where they are passed", s.pos(fn))
	}
}

func TestInterfaces(t *testing.T) {
	for _, s := range sources(t, written) {
		ast.Inspect(s.file, func(n ast.Node) bool {
			spec, ok := n.(*ast.TypeSpec)
			if !ok {
				return true
			}
			iface, ok := spec.Type.(*ast.InterfaceType)
			name := s.file.Name.Name + "." + spec.Name.Name
			if ok && iface.Methods.NumFields() > maxMethods && wideInterfaces[name] == "" {
				t.Errorf("%s: %s has %d methods, more than %d; split it by what its users need",
					s.pos(spec), name, iface.Methods.NumFields(), maxMethods)
			}
			return true
		})
	}
}
