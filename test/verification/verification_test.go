// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const page = "# Page\n\nProse.\n\n" + begin + "\n\n" + head +
	"| one | passed | 1 | 0 | 0 | 3 min | 2026-01-02 03:04 | abc |\n| one-more | passed | | | | 3 s | 2026-01-02 03:04 | abc |\n\n" +
	end + "\n\nMore prose.\n"

// files writes files into a new folder and returns it.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestRun(t *testing.T) {
	now := time.Date(2026, 2, 3, 4, 5, 6, 0, time.FixedZone("", 3600))
	tests := map[string]struct{ part, result, log, row string }{
		"instead of an old row": {
			"one", "one 10 239 FAILED (1)\n", "1 passed, 2 failed, 3 skipped\n40 passed, 2 failed, 3 skipped\nsome words\n",
			"| one | FAILED (1) | 40 | 2 | 3 | 4 min | 2026-02-03 03:05 | def and changes |",
		},
		"without skips":    {"one", "one 0 119 passed\n", "7 passed, 0 failed\n", "| one | passed | 7 | 0 | 0 | 119 s | 2026-02-03 03:05 | def and changes |"},
		"new, not counted": {"two", "two 0 3600 passed\n", "about 7 passed, 0 failed\n", "| two | passed |  |  |  | 60 min | 2026-02-03 03:05 | def and changes |"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := files(t, map[string]string{"page": page, "1-" + tt.part: tt.result, "0-more-" + tt.part: "more-" + tt.part + " 0 1 passed\n", "log": tt.log})
			in := func(name string) string { return filepath.Join(dir, name) }
			if err := run([]string{"-page", in("page"), "-part", tt.part, "-commit", "def and changes", "-results", dir, "-log", in("log")}, now); err != nil {
				t.Fatal(err)
			}
			got, err := os.ReadFile(in("page"))
			if err != nil {
				t.Fatal(err)
			}
			old := "| one | passed | 1 | 0 | 0 | 3 min | 2026-01-02 03:04 | abc |"
			want := strings.Replace(page, old, tt.row, 1)
			if tt.part == "two" {
				want = strings.Replace(page, "\n\n"+end, "\n"+tt.row+"\n\n"+end, 1)
			}
			if diff := cmp.Diff(want, string(got)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestRefusals(t *testing.T) {
	if _, err := write("no table", "one", "| row |"); !errors.Is(err, ErrPage) {
		t.Errorf("got %v", err)
	}
	if _, err := resultOf(t.TempDir(), "one"); !errors.Is(err, ErrResult) {
		t.Errorf("got %v", err)
	}
}

// TestPage wants the page of the repository to have a table, and a paragraph for each part of make ci-full.
func TestPage(t *testing.T) {
	text, err := os.ReadFile("../../docs/verification.md")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := write(string(text), "one", "| row |"); err != nil {
		t.Error(err)
	}
	script, err := os.ReadFile("../../.ci/full")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(script), "\nall=(")
	list, _, _ := strings.Cut(rest, ")")
	if len(strings.Fields(list)) == 0 {
		t.Fatal("found no part in .ci/full")
	}
	for _, part := range strings.Fields(list) {
		if !strings.Contains(string(text), "\n- **"+part+"**") {
			t.Errorf("docs/verification.md does not say what %s shows", part)
		}
	}
}
