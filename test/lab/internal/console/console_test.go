// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package console

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStepBeatsUntilTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		c := New(&out)
		err := c.Step(t.Context(), "build", func(context.Context) error {
			time.Sleep(50 * time.Second)
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		want := "  20s  build … 20s so far\n  40s  build … 40s so far\n  50s  build (50s)\n"
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

func TestProgressSaysMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out strings.Builder
		more := func() string { return ", and much to do" }
		if err := New(&out).Progress(t.Context(), "build", more, func(context.Context) error {
			time.Sleep(30 * time.Second)
			return nil
		}); err != nil {
			t.Fatal(err)
		}
		want := "  20s  build … 20s so far, and much to do\n  30s  build (30s)\n"
		if out.String() != want {
			t.Errorf("got\n%swant\n%s", out.String(), want)
		}
	})
}

func TestStepReportsFailure(t *testing.T) {
	var out strings.Builder
	broken := errors.New("broken")
	err := New(&out).Step(t.Context(), "build", func(context.Context) error { return broken })
	if !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
	if !regexp.MustCompile(`^   0s  build: FAILED after \S+\n$`).MatchString(out.String()) {
		t.Errorf("got %q", out.String())
	}
}
