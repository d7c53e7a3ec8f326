// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package demo

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// hints returns the commands that the demo suggests.
func hints(t *testing.T, args ...string) []string {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "./next", args...).Output()
	if err != nil {
		t.Fatal(err)
	}
	_, text, _ := strings.Cut(string(out), "What to try next")
	var found []string
	for line := range strings.Lines(text) {
		line, indented := strings.CutPrefix(strings.TrimRight(line, "\n"), "    ")
		if indented && !strings.HasPrefix(line, "# ") {
			found = append(found, line)
		}
	}
	if len(found) < 5 {
		t.Fatalf("found only %q in\n%s", found, out)
	}
	return found
}

// TestHints runs each hint by itself in a new shell, where lab and make only note what they are asked for.
func TestHints(t *testing.T) {
	for _, name := range []string{"demo", "other"} {
		t.Run(name, func(t *testing.T) {
			dir, note := t.TempDir(), "#!/bin/sh\necho \"$SEALANE_LAB_NAME $IMAGE $0 $*\" >>calls\n"
			for _, program := range []string{"test/lab/lab", "bin/make"} {
				file := filepath.Join(dir, program)
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, []byte(note), 0o755); err != nil {
					t.Fatal(err)
				}
			}
			for _, hint := range hints(t, name, "example.com/image:tag", "12") {
				cmd := exec.CommandContext(t.Context(), "sh", "-euc", hint)
				cmd.Dir, cmd.Env = dir, []string{"PATH=" + filepath.Join(dir, "bin") + ":/usr/bin:/bin"}
				if out, err := cmd.CombinedOutput(); err != nil {
					t.Errorf("%s: %v\n%s", hint, err, out)
				}
			}
			text, err := os.ReadFile(filepath.Join(dir, "calls"))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(text)) {
				isLab := strings.Contains(line, "test/lab/lab")
				if isLab && !strings.HasPrefix(line, name+" ") {
					t.Errorf("not the demo's lab: %s", line)
				}
				if !isLab && (!strings.Contains(line, " demo") || !strings.Contains(line, "example.com/image:tag")) {
					t.Errorf("another demo: %s", line)
				}
				if !isLab && name == "other" && !strings.HasPrefix(line, "other ") {
					t.Errorf("a demo of another name: %s", line)
				}
			}
		})
	}
}
