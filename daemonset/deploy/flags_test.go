// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package deploy

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// flagSources lists the folders in which a program declares its flags.
var flagSources = map[string][]string{
	"sealaned":           {"cmd/sealaned", "daemonset/agent"},
	"sealane-controller": {"cmd/sealane-controller", "controller"},
	"sealane-wireguard":  {"cmd/sealane-wireguard"},
}

var flagMethod = regexp.MustCompile(`^(String|Bool|Int|Int64|Uint|Uint64|Float64|Duration|Text)?(Var|Func)?(P|VarP)?$`)

// declaredFlags returns the names that a program's sources give to methods of
// a flag set. It reads the syntax, since no program can be asked to list its
// flags in a form for machines.
func declaredFlags(t *testing.T, program string) []string {
	t.Helper()
	var names []string
	for _, dir := range flagSources[program] {
		files, err := filepath.Glob(filepath.Join("..", "..", dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				if call, ok := n.(*ast.CallExpr); ok {
					names = append(names, flagName(call)...)
				}
				return true
			})
		}
	}
	return names
}

// flagName returns the name in a call such as fs.StringVar(&x, "name", …).
func flagName(call *ast.CallExpr) []string {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok || !flagMethod.MatchString(sel.Sel.Name) {
		return nil
	}
	for _, arg := range call.Args[:min(2, len(call.Args))] {
		if lit, ok := arg.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			name, err := strconv.Unquote(lit.Value)
			if err == nil {
				return []string{name}
			}
		}
	}
	return nil
}

// TestCommands wants every program, subcommand and flag in the manifests to be
// one that the program has.
func TestCommands(t *testing.T) {
	for _, args := range [][]string{
		{"--set", "cluster.apiServer=https://a:1,cluster.podCIDRs={10.0.0.0/8},uplinks={eth0}"},
		{"--set", "lane.kind=vxlan,lane.insecurePlaintext=true,ca.mode=secret,ca.secretName=s"},
		{"--set", "ca.mode=cluster"},
		{"--set", "uninstall=true", "--show-only", "templates/uninstall.yaml"},
	} {
		for name, pod := range render(t, args...).pods {
			for _, c := range containers(pod) {
				if len(c.Command) != 1 {
					t.Errorf("%s/%s: command %v", name, c.Name, c.Command)
					continue
				}
				checkCommand(t, name+"/"+c.Name, path.Base(c.Command[0]), c.Args)
				if p := c.ReadinessProbe; p != nil && p.Exec != nil {
					checkCommand(t, name+"/"+c.Name+" probe", path.Base(p.Exec.Command[0]), p.Exec.Command[1:])
				}
			}
		}
	}
}

func checkCommand(t *testing.T, where, program string, args []string) {
	t.Helper()
	mainFile := filepath.Join("..", "..", "cmd", program, "main.go")
	src, err := os.ReadFile(mainFile)
	if err != nil {
		t.Errorf("%s: %v", where, err)
		return
	}
	known := declaredFlags(t, program)
	for i, arg := range args {
		name, isFlag := strings.CutPrefix(arg, "--")
		name, _, _ = strings.Cut(name, "=")
		switch {
		case isFlag && !slices.Contains(known, name):
			t.Errorf("%s: %s has no flag --%s", where, program, name)
		case !isFlag && (i > 0 || !strings.Contains(string(src), strconv.Quote(arg))):
			t.Errorf("%s: %s has no command %s", where, program, arg)
		}
	}
}
