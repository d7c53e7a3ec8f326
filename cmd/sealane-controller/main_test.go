// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/sealane/sealane/controller"
)

func TestVersion(t *testing.T) {
	var out strings.Builder
	if err := run(t.Context(), []string{"--version"}, &out); err != nil || out.String() != version+"\n" {
		t.Errorf("got %q, error %v, want %q", out.String(), err, version)
	}
}

func TestBadConfigurationIsRefusedBeforeAnythingStarts(t *testing.T) {
	for args, want := range map[string]string{
		"--ca-mode=vault": "--ca-mode=vault",
		"extra":           `"extra"`,
		"--ca-mode=cluster --ca-cert=/a --ca-key=/b": "--ca-cert: open /a",
	} {
		err := run(t.Context(), strings.Fields(args), &strings.Builder{})
		if !errors.Is(err, controller.ErrConfig) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got error %v, want one with %q", args, err, want)
		}
	}
}
