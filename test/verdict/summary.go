// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

var (
	// errFailed says that at least one test or build failed.
	errFailed = errors.New("tests failed")
	// errNone says that the input held no finished test at all.
	errNone = errors.New("no test ran")
)

// event is one line of go test -json; see go doc test2json.
type event struct {
	Action     string
	Package    string
	ImportPath string // of a build-output or build-fail event
	Test       string
	Elapsed    float64 // seconds
	Output     string
}

// unit is what is known of one test, or of one package where test is empty.
type unit struct{ pkg, test string }

func (u unit) String() string {
	if u.test == "" {
		return u.pkg
	}
	return u.pkg + " " + u.test
}

// count is the number of tests by outcome.
type count struct{ passed, failed, skipped int }

// summary collects events; it keeps a test's output only until it ends.
type summary struct {
	out    io.Writer
	output map[unit]*strings.Builder
	counts map[string]*count // by package
	skips  []string
	all    count
}

func newSummary(out io.Writer) *summary {
	return &summary{out: out, output: map[unit]*strings.Builder{}, counts: map[string]*count{}}
}

// read takes events until in ends. A line that is not an event (go vet, or a
// test binary that writes to the real standard output) is shown as it is.
func (s *summary) read(in io.Reader) error {
	lines := bufio.NewReader(in)
	for {
		line, err := lines.ReadBytes('\n')
		if len(line) > 0 {
			s.line(line)
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

func (s *summary) line(line []byte) {
	var e event
	if !bytes.HasPrefix(line, []byte("{")) || json.Unmarshal(line, &e) != nil || e.Action == "" {
		fmt.Fprintf(s.out, "%s", line)
		return
	}
	s.take(e)
}

func (s *summary) take(e event) {
	u := unit{pkg: e.Package, test: e.Test}
	switch e.Action {
	case "output":
		s.buffer(u).WriteString(e.Output)
	case "build-output":
		fmt.Fprint(s.out, e.Output)
	case "pass", "fail", "skip":
		if e.Test == "" {
			s.endPackage(u, e)
		} else {
			s.endTest(u, e.Action)
		}
		delete(s.output, u)
	}
}

func (s *summary) endTest(u unit, action string) {
	c := s.count(u.pkg)
	switch action {
	case "pass":
		c.passed++
		s.all.passed++
	case "fail":
		c.failed++
		s.all.failed++
		fmt.Fprintf(s.out, "FAIL  %s\n%s", u, indent(s.buffer(u).String()))
	case "skip":
		c.skipped++
		s.all.skipped++
		s.skips = append(s.skips, u.String()+": "+reason(s.buffer(u).String()))
	}
}

// endPackage prints the package's line. A package fails without a failed test
// if it does not build, panics, leaks or runs out of time: that is one failure.
func (s *summary) endPackage(u unit, e event) {
	c := s.count(u.pkg)
	switch {
	case e.Action == "fail":
		fmt.Fprintf(s.out, "FAIL  %s (%.1fs)\n", u.pkg, e.Elapsed)
		if c.failed == 0 {
			s.all.failed++
			s.showUnfinished(u.pkg)
		}
	case *c != count{}:
		fmt.Fprintf(s.out, "ok    %s (%.1fs): %s\n", u.pkg, e.Elapsed, c)
	}
}

// showUnfinished prints what the package and its unfinished tests said.
func (s *summary) showUnfinished(pkg string) {
	var open []unit
	for u := range s.output {
		if u.pkg == pkg {
			open = append(open, u)
		}
	}
	slices.SortFunc(open, func(a, b unit) int { return strings.Compare(a.test, b.test) })
	for _, u := range open {
		fmt.Fprint(s.out, indent(s.output[u].String()))
	}
}

func (s *summary) printSkips() {
	slices.Sort(s.skips)
	for _, skip := range s.skips {
		fmt.Fprintf(s.out, "skip  %s\n", skip)
	}
}

func (s *summary) totals() string { return s.all.String() }

func (c count) String() string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", c.passed, c.failed, c.skipped)
}

func (s *summary) err() error {
	switch {
	case s.all.failed > 0:
		return errFailed
	case s.all.passed == 0:
		return errNone
	}
	return nil
}

func (s *summary) buffer(u unit) *strings.Builder {
	b := s.output[u]
	if b == nil {
		b = &strings.Builder{}
		s.output[u] = b
	}
	return b
}

func (s *summary) count(pkg string) *count {
	c := s.counts[pkg]
	if c == nil {
		c = &count{}
		s.counts[pkg] = c
	}
	return c
}

// reason takes the skip message out of a test's output: the last line that the
// test itself wrote.
func reason(output string) string {
	last := "no reason given"
	for line := range strings.Lines(output) {
		line = strings.TrimSpace(line)
		if line != "" && !strings.HasPrefix(line, "=== ") && !strings.HasPrefix(line, "--- ") {
			last = line
		}
	}
	return last
}

func indent(text string) string {
	var b strings.Builder
	for line := range strings.Lines(text) {
		b.WriteString("    " + line)
	}
	return b.String()
}
