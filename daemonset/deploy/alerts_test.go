// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package deploy

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"sigs.k8s.io/yaml"
)

const runbooks = "../../docs/runbooks"

var metricInExpression = regexp.MustCompile(`\bsealane_[a-z0-9_]+\b`)

// alert is a rule as Prometheus reads it.
type alert struct {
	Alert       string            `json:"alert"`
	Expr        string            `json:"expr"`
	For         string            `json:"for"`
	Labels      map[string]string `json:"labels"`
	Annotations map[string]string `json:"annotations"`
}

// ruleGroups is a file of rules, and the spec of a PrometheusRule.
type ruleGroups struct {
	Groups []struct {
		Name  string  `json:"name"`
		Rules []alert `json:"rules"`
	} `json:"groups"`
}

func (g ruleGroups) alerts() []alert {
	var all []alert
	for _, group := range g.Groups {
		all = append(all, group.Rules...)
	}
	return all
}

func shippedRules(t *testing.T) ruleGroups {
	t.Helper()
	var rules ruleGroups
	if err := yaml.UnmarshalStrict([]byte(readFile(t, filepath.Join(chart, "alerts", "sealane.yaml"))), &rules); err != nil {
		t.Fatal(err)
	}
	return rules
}

func TestAlerts(t *testing.T) {
	known := readFile(t, "../../docs/metrics.md")
	pages := map[string]bool{}
	for _, a := range shippedRules(t).alerts() {
		if pages[a.Alert] {
			t.Errorf("%s is there twice", a.Alert)
		}
		pages[a.Alert] = true
		checkAlert(t, a)
		metrics := metricInExpression.FindAllString(a.Expr, -1)
		if len(metrics) == 0 {
			t.Errorf("%s looks at no metric of ours: %s", a.Alert, a.Expr)
		}
		for _, m := range metrics {
			if !strings.Contains(known, "`"+m+"`") {
				t.Errorf("%s: docs/metrics.md does not know %s", a.Alert, m)
			}
		}
	}
	files, err := os.ReadDir(runbooks)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if name := strings.TrimSuffix(f.Name(), ".md"); !pages[name] {
			t.Errorf("docs/runbooks/%s is about no alert", f.Name())
		}
	}
}

func checkAlert(t *testing.T, a alert) {
	t.Helper()
	page, err := os.ReadFile(filepath.Join(runbooks, a.Alert+".md"))
	if err != nil {
		t.Errorf("%s has no runbook: %v", a.Alert, err)
	}
	for _, part := range []string{"# " + a.Alert + "\n", "\n## Look\n", "\n## Do\n"} {
		if !strings.Contains(string(page), part) {
			t.Errorf("the runbook of %s has no %q", a.Alert, strings.TrimSpace(part))
		}
	}
	if url := a.Annotations["runbook_url"]; !strings.HasSuffix(url, "/docs/runbooks/"+a.Alert+".md") {
		t.Errorf("%s: runbook_url %q", a.Alert, url)
	}
	if a.Annotations["summary"] == "" || a.Annotations["description"] == "" || !slices.Contains([]string{"critical", "warning"}, a.Labels["severity"]) {
		t.Errorf("%s: annotations %v, labels %v", a.Alert, a.Annotations, a.Labels)
	}
	if _, err := time.ParseDuration(a.For); err != nil {
		t.Errorf("%s: for: %v", a.Alert, err)
	}
	for _, pair := range []string{"()", "[]", "{}"} {
		if strings.Count(a.Expr, pair[:1]) != strings.Count(a.Expr, pair[1:]) {
			t.Errorf("%s: %s do not match in %s", a.Alert, pair, a.Expr)
		}
	}
}

// TestPrometheusRule wants the object for the operator to hold what the file holds.
func TestPrometheusRule(t *testing.T) {
	text, err := helm(t, "--set", "metrics.prometheusRule.enabled=true,metrics.prometheusRule.labels.team=net", "--show-only", "templates/metrics.yaml")
	if err != nil {
		t.Fatal(err)
	}
	_, text, found := strings.Cut(text, "---\n# Source")
	if !found {
		t.Fatalf("no object in\n%s", text)
	}
	i := strings.Index(text, "apiVersion:")
	if i < 0 {
		t.Fatalf("no object in\n%s", text)
	}
	var object struct {
		Kind     string `json:"kind"`
		Metadata struct {
			Labels map[string]string `json:"labels"`
		} `json:"metadata"`
		Spec ruleGroups `json:"spec"`
	}
	if err := yaml.Unmarshal([]byte(text[i:]), &object); err != nil {
		t.Fatal(err)
	}
	if object.Kind != "PrometheusRule" || object.Metadata.Labels["team"] != "net" {
		t.Errorf("kind %q, labels %v", object.Kind, object.Metadata.Labels)
	}
	if got, want := len(object.Spec.alerts()), len(shippedRules(t).alerts()); got != want || got == 0 {
		t.Errorf("the object has %d alerts, the file %d", got, want)
	}
}
