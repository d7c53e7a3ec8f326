// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/token"
	"io/fs"
	"maps"
	"path"
	"slices"
	"strings"
	"testing"
)

// TestPackageDocs wants one package comment per package, in the usual form.
func TestPackageDocs(t *testing.T) {
	docs := map[string]int{}
	for _, s := range sources(t, func(s source) bool { return !s.test }) {
		docs[s.pkg] += 0
		if s.file.Doc == nil {
			continue
		}
		docs[s.pkg]++
		want := "Package " + s.file.Name.Name + " "
		if s.file.Name.Name == "main" {
			want = "Command " + path.Base(s.pkg) + " "
		}
		if !strings.HasPrefix(s.file.Doc.Text(), want) {
			t.Errorf("%s: the package comment does not begin with %q", s.path, want)
		}
	}
	for pkg, n := range docs {
		if n != 1 {
			t.Errorf("%s has %d package comments, want 1", pkg, n)
		}
	}
}

// TestExportedDocs wants a comment on each exported name, that begins with it
// where it stands alone.
func TestExportedDocs(t *testing.T) {
	for _, s := range sources(t, written) {
		for _, decl := range s.file.Decls {
			switch d := decl.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && receiverExported(d) && !standardMethod(d) {
					wantDoc(t, s, d.Name, d.Doc)
				}
			case *ast.GenDecl:
				checkSpecs(t, s, d)
			}
		}
	}
}

func checkSpecs(t *testing.T, s source, d *ast.GenDecl) {
	t.Helper()
	for _, spec := range d.Specs {
		switch spec := spec.(type) {
		case *ast.TypeSpec:
			if spec.Name.IsExported() {
				wantDoc(t, s, spec.Name, either(spec.Doc, d.Doc))
			}
		case *ast.ValueSpec:
			for _, name := range spec.Names {
				if name.IsExported() && spec.Doc == nil && spec.Comment == nil && d.Doc == nil {
					t.Errorf("%s: %s has no comment", s.pos(name), name.Name)
				}
			}
		}
	}
}

func wantDoc(t *testing.T, s source, name *ast.Ident, doc *ast.CommentGroup) {
	t.Helper()
	text := strings.TrimSpace(doc.Text())
	for _, article := range []string{"A ", "An ", "The "} {
		text = strings.TrimPrefix(text, article)
	}
	if !strings.HasPrefix(text, name.Name) {
		t.Errorf("%s: the comment on %s is missing or does not begin with it", s.pos(name), name.Name)
	}
}

func either(a, b *ast.CommentGroup) *ast.CommentGroup {
	if a != nil {
		return a
	}
	return b
}

// receiverExported is true for functions and for methods of exported types.
func receiverExported(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	expr := d.Recv.List[0].Type
	if star, ok := expr.(*ast.StarExpr); ok {
		expr = star.X
	}
	if generic, ok := expr.(*ast.IndexExpr); ok {
		expr = generic.X
	}
	id, ok := expr.(*ast.Ident)
	return ok && id.IsExported()
}

// standardMethod is true for methods whose meaning fmt.Stringer and error give.
func standardMethod(d *ast.FuncDecl) bool {
	return d.Recv != nil && slices.Contains([]string{"String", "Error", "Unwrap", "Is"}, d.Name.Name)
}

// shapeless lists package names that say nothing at the place of the call.
var shapeless = []string{"util", "utils", "common", "types", "helpers", "helper", "manager", "base", "misc", "shared"}

func TestPackageNames(t *testing.T) {
	for _, s := range sources(t, func(source) bool { return true }) {
		if slices.Contains(shapeless, strings.TrimSuffix(s.file.Name.Name, "_test")) {
			t.Errorf("%s: package %s is named after nothing", s.path, s.file.Name.Name)
		}
	}
}

// TestPrivilegedNames keeps the promise of make test: what needs root is named
// TestPrivileged or BenchmarkPrivileged.
func TestPrivilegedNames(t *testing.T) {
	for _, s := range sources(t, func(s source) bool { return s.test && s.pkg != "internal/nettest" }) {
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || fn.Recv != nil || !strings.HasPrefix(fn.Name.Name, "Test") || strings.HasPrefix(fn.Name.Name, "TestPrivileged") {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				sel, ok := n.(*ast.SelectorExpr)
				if ok && isIdent(sel.X, "nettest") && sel.Sel.Name == "Privileged" {
					t.Errorf("%s: %s needs root; name it TestPrivileged…", s.pos(fn), fn.Name.Name)
				}
				return true
			})
		}
	}
}

func isIdent(e ast.Expr, name string) bool {
	id, ok := e.(*ast.Ident)
	return ok && id.Name == name
}

// comment returns how a file writes a comment of one line, with %s for its
// text; empty if the file carries no licence.
func comment(name string, src []byte) string {
	switch {
	case strings.Contains(name, "/testdata/"), bytes.Contains(head(src), []byte("DO NOT EDIT")):
		return ""
	case bytes.HasPrefix(src, []byte("#!")), path.Base(name) == "Makefile",
		slices.Contains([]string{".yaml", ".yml", ".sh"}, path.Ext(name)):
		return "# %s\n"
	case path.Ext(name) == ".h", path.Ext(name) == ".c" && bytes.HasPrefix(src, []byte("/*")):
		return "/* %s */\n"
	case slices.Contains([]string{".go", ".c"}, path.Ext(name)):
		return "// %s\n"
	case slices.Contains([]string{".tpl", ".patch"}, path.Ext(name)):
		return "%s\n"
	}
	return ""
}

// TestLicence wants the two SPDX lines near the top of every source file, and
// of every script whatever its name.
func TestLicence(t *testing.T) {
	err := walk(func(name string) error {
		src, err := fs.ReadFile(root(), name)
		if err != nil {
			return err
		}
		format := comment(name, src)
		if format == "" {
			return nil
		}
		licence := "Apache-2.0"
		switch {
		case strings.HasPrefix(name, "bpf/src/"):
			licence = "(GPL-2.0-only OR BSD-2-Clause)"
		case path.Ext(name) == ".patch": // of the kernel
			licence = "GPL-2.0"
		}
		want := fmt.Sprintf(format+format, "SPDX-License-Identifier: "+licence, "Copyright The Sealane Authors")
		if !bytes.Contains(head(src), []byte(want)) {
			t.Errorf("%s does not have, within its first lines,\n%s", name, want)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// head is the first lines of a file.
func head(src []byte) []byte {
	lines := bytes.SplitAfter(src, []byte("\n"))
	return bytes.Join(lines[:min(len(lines), 6)], nil)
}

// TestErrorsTogether keeps the vocabulary of each package in one file, errors.go
// if there is one.
func TestErrorsTogether(t *testing.T) {
	places := map[string]map[string]bool{}
	for _, s := range sources(t, func(s source) bool { return written(s) && !testSupport(s.pkg) }) {
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				for _, name := range spec.(*ast.ValueSpec).Names {
					if strings.HasPrefix(name.Name, "Err") {
						places[s.pkg] = with(places[s.pkg], s.path)
					}
				}
			}
		}
	}
	for pkg, files := range places {
		if len(files) > 1 {
			t.Errorf("the errors of %s stand in %d files: %v", pkg, len(files), slices.Sorted(maps.Keys(files)))
		}
	}
}

func with(set map[string]bool, member string) map[string]bool {
	if set == nil {
		set = map[string]bool{}
	}
	set[member] = true
	return set
}
