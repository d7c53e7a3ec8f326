// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package steps

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// stage is a folder with .ci/run and .ci/full, in which everything that it runs is an empty shell: it notes that it began and that it
// ended, and counts one test.
func stage(t *testing.T, failing string) (dir string) {
	t.Helper()
	dir = t.TempDir()
	write := func(name, text string) {
		name = filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{".ci/run", ".ci/full", "test/flags", "test/steps/steps"} {
		text, err := os.ReadFile(filepath.Join("../..", name))
		if err != nil {
			t.Fatal(err)
		}
		write(name, string(text))
	}
	for _, name := range []string{
		"test/setup", "test/fuzz", "test/kernels/run", "test/kernels/uml/build", "test/lab/lab", "test/e2e/run",
		"test/run", "test/reproduce", "test/apiserver/run", "perf/run", "bin/make", "bin/go", "bin/git",
	} {
		write(name, `#!/bin/bash
me="${0#./} $*"
[[ $0 != */git ]] || { echo some/bench_test.go; exit; }
echo "began ${me##*/bin/}" >>"$STAGE/calls"
[[ $0 != *e2e* ]] || echo '=== 1s upstream: network'
echo "ended ${me##*/bin/}" >>"$STAGE/calls"
if [[ $me == *"$FAILING"* ]]; then echo "0 passed, 1 failed"; exit 1; fi
echo "1 passed, 0 failed, 0 skipped"
`)
	}
	t.Setenv("STAGE", dir)
	t.Setenv("FAILING", failing)
	t.Setenv("PATH", filepath.Join(dir, "bin")+":"+os.Getenv("PATH"))
	return dir
}

var ciSteps = []string{
	"apiserver", "arm64", "bench", "e2e", "fuzz", "image", "kernel-6.1", "kernel-uml", "lint",
	"modules", "programs", "reproduce", "setup", "test", "verify",
}

// stepsOf returns the names of the steps in the table of times, sorted.
func stepsOf(output string) []string {
	_, table, _ := strings.Cut(output, "\n===== time\n")
	var names []string
	for _, m := range regexp.MustCompile(`(?m)^(\S+) +\d+ s +\d+ s  \S`).FindAllStringSubmatch(table, -1) {
		names = append(names, m[1])
	}
	return slices.Sorted(slices.Values(names))
}

func TestCIRunsEveryStep(t *testing.T) {
	dir := stage(t, "nothing of all this")
	out, err := exec.CommandContext(t.Context(), "bash", filepath.Join(dir, ".ci/run")).CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if got := stepsOf(string(out)); !slices.Equal(got, ciSteps) {
		t.Errorf("got the steps %q, want %q", got, ciSteps)
	}
	if want := fmt.Sprintf("\n%d passed, 0 failed, 0 skipped\n", len(ciSteps)); !strings.HasSuffix(string(out), want) {
		t.Errorf("wrong totals:\n%s", out)
	}
	text, err := os.ReadFile(filepath.Join(dir, "calls"))
	if err != nil {
		t.Fatal(err)
	}
	// Nothing else runs while the tests do, whose timing counts.
	calls := strings.Split(string(text), "\n")
	began := slices.Index(calls, "began make test")
	if began < 0 || calls[began+1] != "ended make test" {
		t.Errorf("make test did not run alone:\n%s", text)
	}
}

func TestCIFailsIfAnyStepDoes(t *testing.T) {
	for _, failing := range []string{"verify", "lint", "6.1"} {
		t.Run(failing, func(t *testing.T) {
			dir := stage(t, failing)
			out, err := exec.CommandContext(t.Context(), "bash", filepath.Join(dir, ".ci/run")).CombinedOutput()
			if err == nil {
				t.Errorf("passed:\n%s", out)
			}
			if got := stepsOf(string(out)); !slices.Equal(got, ciSteps) {
				t.Errorf("got the steps %q, want %q", got, ciSteps)
			}
		})
	}
}

func TestFull(t *testing.T) {
	tests := map[string]struct {
		args    []string
		failing string
		status  int
		last    string
		steps   []string
	}{
		"some parts":   {[]string{"bench", "kernels"}, "nothing", 0, "ci-full: passed", []string{"bench", "image", "kernels", "setup"}},
		"a failed one": {[]string{"kernels", "apiserver"}, "kernels/run", 1, "ci-full: FAILED", []string{"apiserver", "kernels", "setup"}},
		"no row":       {[]string{"apiserver"}, "verification", 1, "ci-full: FAILED: no row was written for apiserver", []string{"apiserver", "setup"}},
		"all": {nil, "nothing", 0, "ci-full: passed", []string{
			"apiserver", "bench", "e2e-dual", "e2e-ipv4", "e2e-ipv6", "image", "kernels", "policies", "revocations", "rotation", "scale", "setup", "tests",
		}},
		"unknown": {[]string{"nonsense"}, "nothing", 2, "", nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			dir := stage(t, tt.failing)
			cmd := exec.CommandContext(t.Context(), "bash", append([]string{filepath.Join(dir, ".ci/full")}, tt.args...)...)
			out, _ := cmd.CombinedOutput() // the status counts
			if got := cmd.ProcessState.ExitCode(); got != tt.status {
				t.Errorf("ended with %d, want %d:\n%s", got, tt.status, out)
			}
			if got := stepsOf(string(out)); !slices.Equal(got, tt.steps) {
				t.Errorf("got the steps %q, want %q", got, tt.steps)
			}
			if tt.last != "" && !strings.HasSuffix(string(out), "\n"+tt.last+"\n") {
				t.Errorf("did not end with %q:\n%s", tt.last, out)
			}
		})
	}
}
