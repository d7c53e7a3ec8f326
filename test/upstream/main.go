// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command upstream chooses which of Kubernetes' own network tests run on Sealane, and counts what came of them.
//
//	upstream focus SUITE <REPORT        a regular expression that matches the suite's tests and no other
//	upstream count SUITE <REPORT        one line for each group of the suite, and the totals
//
// REPORT is what Ginkgo's --json-report wrote: for focus, that of a dry run without focus; for count, that of the run.
// All groups of a suite run in one start of Ginkgo, yet each has to have as many passed tests as it always had.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"regexp"
	"slices"
	"strings"
)

var (
	// ErrUsage means that the arguments make no sense.
	ErrUsage = errors.New("usage: upstream focus|count network|conformance|policy <REPORT")
	// ErrFailed means that tests failed, or that fewer passed than have to.
	ErrFailed = errors.New("not all of upstream's tests passed")
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "upstream:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) != 2 {
		return ErrUsage
	}
	groups := suite(args[1])
	if len(groups) == 0 {
		return fmt.Errorf("%w: no suite %q", ErrUsage, args[1])
	}
	all, err := read(in)
	if err != nil {
		return err
	}
	switch args[0] {
	case "focus":
		return focus(groups, all, out)
	case "count":
		return count(groups, all, out)
	}
	return ErrUsage
}

// focus prints a regular expression for the tests that are in any of the groups. Ginkgo matches it with the names of
// the containers and of the test, joined by spaces, anywhere in that text.
func focus(groups []group, all []spec, out io.Writer) error {
	var names []string
	for _, s := range all {
		if slices.ContainsFunc(groups, func(g group) bool { return g.has(s.name) }) {
			names = append(names, regexp.QuoteMeta(s.name))
		}
	}
	if len(names) == 0 {
		return fmt.Errorf("%w: the report names none", ErrFailed)
	}
	slices.Sort(names)
	_, err := fmt.Fprintf(out, "(%s)$\n", strings.Join(slices.Compact(names), "|"))
	return err
}

// count prints what came of each group. A test that is in two groups counts once in the totals. A group with too few
// passed tests and no failed one counts as one failure.
func count(groups []group, all []spec, out io.Writer) error {
	total, short := tally(all, func(string) bool { return true }), 0
	for _, g := range groups {
		t := tally(all, g.has)
		verdict := "ok"
		if t.failed > 0 || t.passed < g.want {
			verdict = "FAILED"
		}
		if t.failed == 0 && t.passed < g.want {
			short++
		}
		fmt.Fprintf(out, "upstream %s: %s: %d passed, %d failed; wanted %d to pass\n", g.name, verdict, t.passed, t.failed, g.want)
	}
	for _, s := range all {
		if s.ran() && !s.passed() {
			fmt.Fprintln(out, "FAILED:", s.name)
		}
	}
	fmt.Fprintf(out, "%d passed, %d failed, 0 skipped\n", total.passed, total.failed+short)
	if total.failed+short > 0 {
		return ErrFailed
	}
	return nil
}
