// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"errors"
	"flag"
	"io"
	"strings"
	"testing"

	"github.com/sealane/sealane/controller/authority"
)

func parse(args ...string) (Config, error) {
	fs := flag.NewFlagSet("test", flag.ContinueOnError)
	fs.SetOutput(io.Discard)
	var cfg Config
	cfg.Register(fs)
	if err := fs.Parse(args); err != nil {
		return cfg, err
	}
	return cfg, cfg.Validate()
}

func TestConfigDefaultsAreValid(t *testing.T) {
	cfg, err := parse()
	if err != nil {
		t.Fatal(err)
	}
	if cfg.CA.Mode != authority.ModeSelf || cfg.Identity == "" || cfg.Namespace != "sealane-system" {
		t.Errorf("got %+v", cfg)
	}
}

func TestShortestLifetimes(t *testing.T) {
	if _, err := parse("--certificate-lifetime=10m", "--intermediate-lifetime=30m", "--root-lifetime=1h"); err != nil {
		t.Error(err)
	}
}

func TestConfigRefusals(t *testing.T) {
	for _, tc := range []struct{ args, names string }{
		{"--ca-mode=vault", "--ca-mode=vault: use self"},
		{"--ca-mode=secret", "--ca-secret="},
		{"--ca-mode=secret --ca-secret=sealane-ca", "--ca-secret=sealane-ca: use another name"},
		{"--ca-secret=x", "--ca-secret=x: only --ca-mode=secret"},
		{"--ca-mode=cluster", "--ca-cert="},
		{"--ca-mode=cluster --ca-cert=x", "--ca-key="},
		{"--ca-key=x", "only --ca-mode=cluster"},
		{"--certificate-lifetime=9m", "--certificate-lifetime=9m0s: use 10m"},
		{"--certificate-lifetime=169h", "--certificate-lifetime=169h0m0s: use 10m"},
		{"--ca-mode=secret --ca-secret=sealane-ca-root", "--ca-secret=sealane-ca-root: use another name"},
		{"--intermediate-lifetime=503h", "--intermediate-lifetime=503h0m0s: use at least 3 times --certificate-lifetime, 504h0m0s"},
		{"--certificate-lifetime=10m --intermediate-lifetime=29m", "--intermediate-lifetime=29m0s"},
		{"--root-lifetime=17519h", "--root-lifetime=17519h0m0s: use at least 2 times --intermediate-lifetime, 17520h0m0s"},
		{"--max-certificates-per-hour=-1", "--max-certificates-per-hour=-1"},
		{"--namespace=", "--namespace="},
	} {
		_, err := parse(strings.Fields(tc.args)...)
		if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), tc.names) {
			t.Errorf("%s: got error %v, want ErrConfig with %q", tc.args, err, tc.names)
		}
	}
	if _, err := parse("--log-level=loud"); err == nil {
		t.Error("log level loud was taken")
	}
}
