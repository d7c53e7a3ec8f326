// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
)

// spec is one test of a report.
type spec struct{ name, state string }

// ran reports whether the test was not left out, by the focus or by itself.
func (s spec) ran() bool { return s.state != "skipped" && s.state != "pending" && s.state != "" }

// passed reports whether it passed in the end.
func (s spec) passed() bool { return s.state == "passed" }

// read returns the tests of a report that Ginkgo wrote, and what failed before or after them.
func read(in io.Reader) ([]spec, error) {
	var suites []struct {
		SuiteSucceeded             bool
		SpecialSuiteFailureReasons []string
		SpecReports                []struct {
			ContainerHierarchyTexts    []string
			LeafNodeType, LeafNodeText string
			State                      string
		}
	}
	if err := json.NewDecoder(in).Decode(&suites); err != nil {
		return nil, fmt.Errorf("read the report: %w", err)
	}
	var all []spec
	for _, suite := range suites {
		for _, r := range suite.SpecReports {
			texts := slices.DeleteFunc(append(r.ContainerHierarchyTexts, r.LeafNodeText), func(t string) bool { return t == "" })
			s := spec{strings.Join(texts, " "), r.State}
			switch {
			case r.LeafNodeType == "It":
				all = append(all, s)
			case s.ran() && !s.passed(): // the suite's own beginning or end
				all = append(all, spec{strings.TrimSpace(r.LeafNodeType + " " + s.name), s.state})
			}
		}
		if suite.SuiteSucceeded {
			continue
		}
		for _, reason := range suite.SpecialSuiteFailureReasons { // out of time, interrupted
			all = append(all, spec{reason, "failed"})
		}
	}
	return all, nil
}

type outcome struct{ passed, failed int }

func tally(all []spec, in func(name string) bool) outcome {
	var o outcome
	for _, s := range all {
		switch {
		case !in(s.name) || !s.ran():
		case s.passed():
			o.passed++
		default:
			o.failed++
		}
	}
	return o
}
