// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package steps

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ended is what a script left.
type ended struct {
	output string
	failed bool
	dir    string
}

// script returns a command that runs steps in a folder of its own, $dir.
func script(t *testing.T, text string) *exec.Cmd {
	t.Helper()
	dir := t.TempDir()
	cmd := exec.CommandContext(t.Context(), "bash", "-c", "set -uo pipefail\n. ./steps\nsteps_begin \"$dir/logs\"\n"+text)
	cmd.Env = append(os.Environ(), "dir="+dir)
	return cmd
}

func run(t *testing.T, text string) ended {
	t.Helper()
	cmd := script(t, text)
	out, err := cmd.CombinedOutput()
	return ended{output: string(out), failed: err != nil, dir: dirOf(cmd)}
}

func dirOf(cmd *exec.Cmd) string {
	return strings.TrimPrefix(cmd.Env[len(cmd.Env)-1], "dir=")
}

func (e ended) want(t *testing.T, patterns ...string) {
	t.Helper()
	for _, p := range patterns {
		if !regexp.MustCompile("(?m)" + p).MatchString(e.output) {
			t.Errorf("no line matches %q in\n%s", p, e.output)
		}
	}
}

func TestTotals(t *testing.T) {
	got := run(t, `
step one 1 printf '3 passed, 0 failed, 1 skipped\n5 passed, 0 failed, 2 skipped\n'
step two 1 echo '7 passed, 0 failed'
step three 1 echo 'all 9 passed, 0 failed'
steps_end`)
	if got.failed {
		t.Errorf("failed:\n%s", got.output)
	}
	if !strings.HasSuffix(got.output, "\n12 passed, 0 failed, 2 skipped\n") {
		t.Errorf("wrong totals:\n%s", got.output)
	}
	got.want(t, `^===== one: passed$`, `^one +\d+ s +\d+ s +passed\ntwo .*\nthree .*`, `^total +\d+ s +0 of 3 steps failed$`)
}

func TestFailureDoesNotKeepLaterStepsFromRunning(t *testing.T) {
	got := run(t, `
step bad 1 bash -c 'echo the reason; echo "1 passed, 1 failed"; exit 3'
step good 1 echo '2 passed, 0 failed'
steps_end`)
	if !got.failed {
		t.Error("a failed step was not noticed")
	}
	got.want(t, `^bad .* FAILED \(3\)$`, `^good .* passed$`, `1 of 2 steps failed$`, `^3 passed, 1 failed, 0 skipped$`,
		`^===== bad: the last lines\nthe reason\n1 passed, 1 failed\n\n===== time$`)
	if strings.Contains(got.output, "good: the last lines") {
		t.Errorf("as if good had failed:\n%s", got.output)
	}
}

func TestFailureInTheBackground(t *testing.T) {
	got := run(t, `
background() { quiet bad 1 bash -c 'echo why; exit 4'; quiet good 1 true; }
beside background
step front 1 true
steps_end`)
	if !got.failed {
		t.Error("a failed step was not noticed")
	}
	got.want(t, `^bad \| why$`, `^bad .* FAILED \(4\)$`, `^good .* passed$`, `1 of 3 steps failed$`)
}

// Each of the two steps waits for a file that the other makes.
func TestStepsRunBesideEachOther(t *testing.T) {
	got := run(t, `
background() { idle back 1 bash -c 'touch "$dir/back"; until [[ -e $dir/front ]]; do sleep 0.02; done; echo "4 passed, 0 failed"'; }
beside background
step front 1 bash -c 'touch "$dir/front"; until [[ -e $dir/back ]]; do sleep 0.02; done; echo "6 passed, 0 failed"'
join
steps_end`)
	if got.failed {
		t.Error("failed")
	}
	got.want(t, `^back \| 4 passed, 0 failed$`, `^10 passed, 0 failed, 0 skipped$`)
}

func TestHold(t *testing.T) {
	got := run(t, `
background() { hold front '^second half'; quiet held 1 bash -c 'touch "$dir/held"; cat "$dir/logs/front"'; hold ended never; quiet last 1 true; }
beside background
step front 1 bash -c 'echo first half; sleep 0.3; echo second half; until [[ -e $dir/held ]]; do sleep 0.02; done'
step ended 1 true
steps_end`)
	if got.failed {
		t.Error("failed")
	}
	got.want(t, `^held \| second half$`, `^last .* passed$`)
}

// The kernel gives each session an equal share, whatever the niceness of the processes in it.
func TestIdleYieldsToOtherSessions(t *testing.T) {
	got := run(t, `
background() { idle calm 1 bash -c 'nice; cat /proc/self/autogroup || true'; }
beside background
step front 1 cat /proc/self/autogroup
steps_end`)
	got.want(t, `^calm \| 19$`)
	if _, err := os.Stat("/proc/self/autogroup"); err == nil {
		got.want(t, `^calm \| /autogroup-\d+ nice 19$`)
		// What was never in a session of its own, such as a service, is in no group, and prints none.
		groups := regexp.MustCompile(`/autogroup-\d+`).FindAllString(got.output, -1)
		if len(groups) == 2 && groups[0] == groups[1] {
			t.Errorf("not a session of its own: %q", groups)
		}
	}
}

func TestLimit(t *testing.T) {
	got := run(t, `
slow() { idle slow 0.005 bash -c 'sleep 60 & echo $! >"$dir/pid"; wait'; }
beside slow
steps_end`)
	if !got.failed {
		t.Error("a step over its limit was not noticed")
	}
	got.want(t, `^slow .* FAILED \(more than 0.005 minutes\)$`)
	gone(t, filepath.Join(got.dir, "pid"))
}

func TestBackgroundThatEndsEarlyFails(t *testing.T) {
	got := run(t, `
background() { exit 0; quiet never 1 true; }
beside background
step front 1 true
steps_end`)
	if !got.failed {
		t.Error("steps that did not run were not noticed")
	}
	got.want(t, `^background .* FAILED \(ended before its last step\)$`)
}

func TestInterruptEndsAllSteps(t *testing.T) {
	cmd := script(t, `
background() { idle back 1 bash -c 'echo $$ >"$dir/back"; exec sleep 60'; }
beside background
step front 1 bash -c 'echo $$ >"$dir/front"; exec sleep 60'
step later 1 touch "$dir/later"
steps_end`)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	dir := dirOf(cmd)
	for _, name := range []string{"back", "front"} {
		until(t, func() bool { text, _ := os.ReadFile(filepath.Join(dir, name)); return len(text) > 1 })
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 130 {
		t.Errorf("ended with %v:\n%s", err, out.String())
	}
	gone(t, filepath.Join(dir, "back"))
	gone(t, filepath.Join(dir, "front"))
	if _, err := os.Stat(filepath.Join(dir, "later")); err == nil {
		t.Error("a later step ran")
	}
}

// gone waits until the process whose number is in the file has ended.
func gone(t *testing.T, file string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	stat := filepath.Join("/proc", strings.TrimSpace(string(text)), "stat")
	until(t, func() bool {
		line, err := os.ReadFile(stat)
		return err != nil || bytes.Contains(line, []byte(") Z ")) // a zombie, if nobody reaps it
	})
}

func until(t *testing.T, done func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("waited for 20 s")
		}
	}
}
