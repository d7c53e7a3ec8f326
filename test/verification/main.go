// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command verification writes what came of one part of make ci-full into the table of docs/verification.md. The rest of
// the page, and the rows of other parts, stay as they are.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The table's rows stand between these lines, after its head.
const (
	begin = "<!-- rows: make ci-full writes them -->"
	end   = "<!-- end of rows -->"
	head  = "| part | verdict | passed | failed | skipped | took | date (UTC) | commit |\n|---|---|--:|--:|--:|--:|---|---|\n"
)

var (
	// ErrPage means that the page has no table to write to.
	ErrPage = errors.New("page without a table")
	// ErrResult means that the step has left no result.
	ErrResult = errors.New("no result")
)

func main() {
	if err := run(os.Args[1:], time.Now()); err != nil {
		fmt.Fprintln(os.Stderr, "verification:", err)
		os.Exit(1)
	}
}

func run(args []string, now time.Time) error {
	flags := flag.NewFlagSet("verification", flag.ContinueOnError)
	page := flags.String("page", "docs/verification.md", "the `file` to write to")
	part := flags.String("part", "", "`name` of the part")
	commit := flags.String("commit", "", "what was tested")
	results := flags.String("results", "", "`folder` of results of test/steps/steps")
	log := flags.String("log", "", "`file` with the output of the part")
	if err := flags.Parse(args); err != nil {
		return err
	}
	r, err := resultOf(*results, *part)
	if err != nil {
		return err
	}
	output, err := os.ReadFile(*log)
	if err != nil {
		return err
	}
	r.counts = countsOf(string(output))
	text, err := os.ReadFile(*page)
	if err != nil {
		return err
	}
	changed, err := write(string(text), *part, r.row(*part, *commit, now))
	if err != nil {
		return fmt.Errorf("%s: %w", *page, err)
	}
	return os.WriteFile(*page, []byte(changed), 0o644)
}

// result is what is known of a part that has ended.
type result struct {
	verdict string
	took    time.Duration
	counts  [3]string // passed, failed, skipped; empty where the part counts nothing
}

// resultOf reads what test/steps/steps wrote: name, when it began and how long it took, in seconds, and the verdict.
func resultOf(folder, part string) (result, error) {
	files, err := fs.Glob(os.DirFS(folder), "*-"+part)
	if err != nil {
		return result{}, err
	}
	for _, file := range files {
		text, err := os.ReadFile(filepath.Join(folder, file))
		if err != nil {
			return result{}, err
		}
		fields := strings.SplitN(strings.TrimSpace(string(text)), " ", 4)
		if len(fields) != 4 || fields[0] != part {
			continue
		}
		seconds, err := strconv.Atoi(fields[2])
		if err != nil {
			return result{}, fmt.Errorf("read %s: %w", file, err)
		}
		return result{verdict: fields[3], took: time.Duration(seconds) * time.Second}, nil
	}
	return result{}, fmt.Errorf("%w of %q in %s", ErrResult, part, folder)
}

var totals = regexp.MustCompile(`(?m)^(\d+) passed, (\d+) failed(?:, (\d+) skipped)?$`)

// countsOf returns the last totals in a test runner's output.
func countsOf(output string) [3]string {
	found := totals.FindAllStringSubmatch(output, -1)
	if len(found) == 0 {
		return [3]string{}
	}
	last := found[len(found)-1]
	if last[3] == "" {
		last[3] = "0"
	}
	return [3]string(last[1:])
}

func (r result) row(part, commit string, now time.Time) string {
	minutes := strconv.Itoa(int(r.took.Round(time.Minute)/time.Minute)) + " min"
	if r.took < 2*time.Minute {
		minutes = strconv.Itoa(int(r.took/time.Second)) + " s"
	}
	cells := append([]string{part, r.verdict}, r.counts[:]...)
	return "| " + strings.Join(append(cells, minutes, now.UTC().Format("2006-01-02 15:04"), commit), " | ") + " |"
}

// write puts a row into the table of a page, in place of the part's last one; a new part comes last.
func write(page, part, row string) (string, error) {
	before, rest, found := strings.Cut(page, begin+"\n")
	table, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return "", fmt.Errorf("%w: want the lines %q and %q", ErrPage, begin, end)
	}
	var rows []string
	for line := range strings.Lines(table) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "| ") && !strings.HasPrefix(line, "| part |") {
			rows = append(rows, line)
		}
	}
	if i := slices.IndexFunc(rows, func(r string) bool { return strings.HasPrefix(r, "| "+part+" |") }); i >= 0 {
		rows[i] = row
	} else {
		rows = append(rows, row)
	}
	return before + begin + "\n\n" + head + strings.Join(rows, "\n") + "\n\n" + end + after, nil
}
