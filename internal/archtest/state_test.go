// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"go/ast"
	"go/token"
	"slices"
	"strings"
	"testing"
)

// stateful lists packages whose values have a life of their own, so that a
// package variable of theirs is state, whether it is assigned again or not.
var stateful = []string{"sync", "atomic", "prometheus", "promauto", "slog", "rand"}

// TestNoInit wants every effect to have a caller.
func TestNoInit(t *testing.T) {
	for _, s := range sources(t, written) {
		for _, decl := range s.file.Decls {
			if fn, ok := decl.(*ast.FuncDecl); ok && fn.Recv == nil && fn.Name.Name == "init" {
				t.Errorf("%s: init() runs unasked; call it from where it is needed", s.pos(fn))
			}
		}
	}
}

// TestNoExit leaves the end of the process to main, and panic to Must functions
// and to lines that say why they cannot be reached.
func TestNoExit(t *testing.T) {
	for _, s := range sources(t, written) {
		for _, decl := range s.file.Decls {
			fn, ok := decl.(*ast.FuncDecl)
			if !ok || testSupport(s.pkg) {
				continue
			}
			ast.Inspect(fn, func(n ast.Node) bool {
				call, ok := n.(*ast.CallExpr)
				if !ok {
					return true
				}
				if ends(call) && (s.file.Name.Name != "main" || fn.Name.Name != "main") {
					t.Errorf("%s: only main() may end the process; return an error", s.pos(call))
				}
				if isIdent(call.Fun, "panic") && !strings.HasPrefix(fn.Name.Name, "Must") && !commented(s, call) {
					t.Errorf("%s: panic outside a Must function; return an error", s.pos(call))
				}
				return true
			})
		}
	}
}

// commented tells whether a comment follows on the line of a node.
func commented(s source, n ast.Node) bool {
	line := s.fset.Position(n.Pos()).Line
	return slices.ContainsFunc(s.file.Comments, func(c *ast.CommentGroup) bool {
		return s.fset.Position(c.Pos()).Line == line
	})
}

func ends(call *ast.CallExpr) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	return ok && (isIdent(sel.X, "os") && sel.Sel.Name == "Exit" ||
		isIdent(sel.X, "log") && (strings.HasPrefix(sel.Sel.Name, "Fatal") || strings.HasPrefix(sel.Sel.Name, "Panic")))
}

// TestNoMutableGlobals allows package variables that nobody changes: error
// values, tables, parsed constants, embedded files, interface assertions.
func TestNoMutableGlobals(t *testing.T) {
	byPackage := map[string][]source{}
	for _, s := range sources(t, written) {
		byPackage[s.pkg] = append(byPackage[s.pkg], s)
	}
	for pkg, files := range byPackage {
		if testSupport(pkg) {
			continue
		}
		vars := globals(t, files)
		for _, s := range files {
			for _, id := range changed(s) {
				if vars[id.Name] {
					t.Errorf("%s: %s is a package variable; keep state in a value that somebody owns", s.pos(id), id.Name)
				}
			}
		}
	}
}

// globals returns the package variables of files and reports those that cannot
// but be state.
func globals(t *testing.T, files []source) map[string]bool {
	t.Helper()
	vars := map[string]bool{}
	for _, s := range files {
		for _, decl := range s.file.Decls {
			d, ok := decl.(*ast.GenDecl)
			if !ok || d.Tok != token.VAR {
				continue
			}
			for _, spec := range d.Specs {
				v := spec.(*ast.ValueSpec)
				for _, name := range v.Names {
					vars[name.Name] = name.Name != "_"
				}
				if v.Names[0].Name != "_" && !strings.Contains(either(v.Doc, d.Doc).Text()+directives(v.Doc, d.Doc), "go:embed") && isState(v) {
					t.Errorf("%s: package variable %s holds state", s.pos(v), v.Names[0].Name)
				}
			}
		}
	}
	return vars
}

// directives returns the //go: lines, which CommentGroup.Text leaves out.
func directives(groups ...*ast.CommentGroup) string {
	var b strings.Builder
	for _, g := range groups {
		if g == nil {
			continue
		}
		for _, c := range g.List {
			b.WriteString(c.Text)
		}
	}
	return b.String()
}

// isState tells whether a variable is declared without a value, is made empty
// to be filled, or is of a stateful kind.
func isState(v *ast.ValueSpec) bool {
	if len(v.Values) == 0 {
		return true
	}
	state := false
	for _, expr := range append([]ast.Expr{v.Type}, v.Values...) {
		if expr == nil {
			continue
		}
		ast.Inspect(expr, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.FuncLit:
				return false
			case *ast.SelectorExpr:
				if id, ok := n.X.(*ast.Ident); ok && slices.Contains(stateful, id.Name) {
					state = true
				}
			case *ast.CallExpr:
				if isIdent(n.Fun, "make") || isIdent(n.Fun, "new") {
					state = true
				}
			}
			return true
		})
	}
	return state
}

// changed returns the identifiers of package scope that a file assigns to,
// counts up or down, takes the address of, deletes from or clears.
func changed(s source) []*ast.Ident {
	var ids []*ast.Ident
	add := func(e ast.Expr) {
		if id := base(e); id != nil && packageScope(s, id) {
			ids = append(ids, id)
		}
	}
	ast.Inspect(s.file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.AssignStmt:
			if n.Tok != token.DEFINE {
				for _, lhs := range n.Lhs {
					add(lhs)
				}
			}
		case *ast.IncDecStmt:
			add(n.X)
		case *ast.UnaryExpr:
			if n.Op == token.AND {
				add(n.X)
			}
		case *ast.CallExpr:
			if len(n.Args) > 0 && (isIdent(n.Fun, "delete") || isIdent(n.Fun, "clear")) {
				add(n.Args[0])
			}
		}
		return true
	})
	return ids
}

// base returns x of x, x.f, x[i] and *x.
func base(e ast.Expr) *ast.Ident {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x
		case *ast.SelectorExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return nil
		}
	}
}

// packageScope tells whether the parser found no nearer declaration of id: it
// is declared at the top of this file, or in another one.
func packageScope(s source, id *ast.Ident) bool {
	return id.Obj == nil || s.file.Scope.Lookup(id.Name) == id.Obj
}
