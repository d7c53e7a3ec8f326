// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"go/ast"
	"go/token"
	"io/fs"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	dto "github.com/prometheus/client_model/go"
)

var (
	metricName  = regexp.MustCompile(`^sealane(_[a-z0-9]+){2,}$`)
	metricInDoc = regexp.MustCompile(`\bsealane(_[a-z0-9]+){2,}\b`)
)

// metrics returns the name of every metric in the product's string literals,
// with its type as far as the code around it tells.
func metrics(t *testing.T) map[string]dto.MetricType {
	t.Helper()
	found := map[string]dto.MetricType{}
	for _, s := range sources(t, written) {
		if workshop(s.pkg) {
			continue
		}
		ast.Inspect(s.file, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.BasicLit:
				if name, err := strconv.Unquote(n.Value); err == nil && n.Kind == token.STRING && metricName.MatchString(name) {
					if _, known := found[name]; !known {
						found[name] = typeByName(name)
					}
				}
			case *ast.CompositeLit:
				if name, kind, ok := options(t, s, n); ok {
					found[name] = kind
				}
			}
			return true
		})
	}
	return found
}

func typeByName(name string) dto.MetricType {
	if strings.HasSuffix(name, "_total") {
		return dto.MetricType_COUNTER
	}
	return dto.MetricType_GAUGE
}

// options reads a prometheus.XxxOpts literal.
func options(t *testing.T, s source, lit *ast.CompositeLit) (string, dto.MetricType, bool) {
	t.Helper()
	sel, ok := lit.Type.(*ast.SelectorExpr)
	if !ok || !isIdent(sel.X, "prometheus") {
		return "", 0, false
	}
	kind, ok := dto.MetricType_value[strings.ToUpper(strings.TrimSuffix(sel.Sel.Name, "Opts"))]
	if !ok {
		return "", 0, false
	}
	name := ""
	for _, elt := range lit.Elts {
		kv, ok := elt.(*ast.KeyValueExpr)
		if !ok {
			continue
		}
		if isIdent(kv.Key, "Namespace") || isIdent(kv.Key, "Subsystem") {
			t.Errorf("%s: write the whole name of a metric, so that it can be searched for", s.pos(kv))
		}
		if value, ok := kv.Value.(*ast.BasicLit); ok && isIdent(kv.Key, "Name") {
			name, _ = strconv.Unquote(value.Value)
		}
	}
	if name != "" && !metricName.MatchString(name) {
		t.Errorf("%s: metric %q is not named sealane_<package>_<what>_<unit>", s.pos(lit), name)
	}
	return name, dto.MetricType(kind), name != ""
}

func TestMetricNames(t *testing.T) {
	for name, kind := range metrics(t) {
		help := "."
		problems, err := promlint.NewWithMetricFamilies([]*dto.MetricFamily{{Name: &name, Help: &help, Type: &kind}}).Lint()
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range problems {
			t.Errorf("%s: %s", p.Metric, p.Text)
		}
	}
}

// TestMetricsDocumented compares the metrics with the operator's list of them.
func TestMetricsDocumented(t *testing.T) {
	const page = "docs/metrics.md"
	known := metrics(t)
	text, err := fs.ReadFile(root(), page)
	if err != nil {
		t.Fatalf("the %d metrics are documented nowhere: %v", len(known), err)
	}
	documented := map[string]bool{}
	for _, name := range metricInDoc.FindAllString(string(text), -1) {
		documented[name] = true
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if !documented[name] {
			t.Errorf("%s does not tell what %s means", page, name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(documented)) {
		if _, ok := known[name]; !ok {
			t.Errorf("%s tells of %s, which nothing exports", page, name)
		}
	}
}
