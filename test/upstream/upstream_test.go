// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"fmt"
	"regexp"
	"strings"
	"testing"
)

// report is what Ginkgo writes of these tests, whose names are "text: state".
func report(tests ...string) string {
	var specs []string
	for _, t := range tests {
		name, state, _ := strings.Cut(t, ": ")
		specs = append(specs, fmt.Sprintf(`{"ContainerHierarchyTexts":["[sig-network] Some",""],"LeafNodeType":"It","LeafNodeText":%q,"State":%q}`, name, state))
	}
	return `[{"SuiteSucceeded":true,"SpecReports":[{"LeafNodeType":"BeforeSuite","State":"passed"},` + strings.Join(specs, ",") + `]}]`
}

func TestFocus(t *testing.T) {
	var out strings.Builder
	in := report("a (1) [Conformance]: passed", "b [Conformance] SCTP: passed", "c [Slow]: passed", "d [Slow] IPv6DualStack: passed", "e: skipped", "Netpol f: passed")
	if err := run([]string{"focus", "network"}, strings.NewReader(in), &out); err != nil {
		t.Fatal(err)
	}
	re := regexp.MustCompile(strings.TrimSpace(out.String()))
	for name, want := range map[string]bool{
		"a (1) [Conformance]": true, "b [Conformance] SCTP": false, "c [Slow]": false, "d [Slow] IPv6DualStack": true,
		"e": true, "e and more": false, "Netpol f": false,
	} {
		if got := re.MatchString("Kubernetes e2e suite [sig-network] Some " + name); got != want {
			t.Errorf("%q: got %t, want %t by %s", name, got, want, re)
		}
	}
}

func many(n int, test string) []string {
	var tests []string
	for i := range n {
		tests = append(tests, fmt.Sprintf(test, i))
	}
	return tests
}

func TestCount(t *testing.T) {
	enough := many(47, "%d [Conformance]: passed")
	tests := map[string]struct {
		report string
		totals string
		good   bool
	}{
		"all":          {report(append(enough, "left out: skipped")...), "47 passed, 0 failed, 0 skipped", true},
		"one failed":   {report(append(enough, "x [Conformance]: failed")...), "47 passed, 1 failed, 0 skipped", false},
		"one panicked": {report(append(enough, "x: panicked")...), "47 passed, 1 failed, 0 skipped", false},
		"too few":      {report(enough[1:]...), "46 passed, 1 failed, 0 skipped", false},
		"nothing":      {"[]", "0 passed, 1 failed, 0 skipped", false},
		"no beginning": {
			`[{"SuiteSucceeded":false,"SpecReports":[{"LeafNodeType":"SynchronizedBeforeSuite","State":"failed"}]}]`,
			"0 passed, 2 failed, 0 skipped", false,
		},
		"out of time": {
			strings.Replace(report(enough...), `true,`, `false,"SpecialSuiteFailureReasons":["Suite Timeout Elapsed"],`, 1),
			"47 passed, 1 failed, 0 skipped", false,
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var out strings.Builder
			err := run([]string{"count", "conformance"}, strings.NewReader(tt.report), &out)
			if tt.good != (err == nil) || err != nil && !errors.Is(err, ErrFailed) {
				t.Errorf("got error %v", err)
			}
			if !strings.HasSuffix(out.String(), "\n"+tt.totals+"\n") {
				t.Errorf("got %s, want it to end with %s", out.String(), tt.totals)
			}
		})
	}
}

// A test of two groups counts in each, and once in all.
func TestCountOfTwoGroups(t *testing.T) {
	var out strings.Builder
	tests := append(many(47, "%d [Conformance] IPv6DualStack: passed"), many(59, "%d: passed")...)
	if err := run([]string{"count", "network"}, strings.NewReader(report(tests...)), &out); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"upstream conformance: ok: 47 passed", "upstream dual-stack: ok: 47 passed", "\n106 passed, 0 failed, 0 skipped\n"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{nil, {"count"}, {"count", "nonsense"}, {"nonsense", "policy"}} {
		if err := run(args, strings.NewReader("[]"), &strings.Builder{}); !errors.Is(err, ErrUsage) {
			t.Errorf("%q: got %v", args, err)
		}
	}
}
