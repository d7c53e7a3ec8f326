// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package paths

import (
	"errors"
	"testing"
)

func TestFromEnv(t *testing.T) {
	tests := map[string]struct {
		env                map[string]string
		state, cache, name string
	}{
		"nothing set": {map[string]string{"HOME": "/home/a"}, "/var/lib/sealane-lab/sealane", "/home/a/.cache/sealane/lab", "sealane-lab"},
		"all set": {
			map[string]string{EnvCache: "/c", EnvState: "/s", EnvName: "two"},
			"/s/two", "/c/lab", "two-lab",
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			p, err := FromEnv(func(key string) string { return tt.env[key] })
			if err != nil {
				t.Fatal(err)
			}
			if p.State() != tt.state || p.Cache != tt.cache || p.Group() != tt.name {
				t.Errorf("got %q %q %q, want %q %q %q", p.State(), p.Cache, p.Group(), tt.state, tt.cache, tt.name)
			}
		})
	}
}

// A name becomes part of paths below which everything is removed and killed.
func TestFromEnvRefuses(t *testing.T) {
	for _, name := range []string{"..", "a/b", "A", "-a", "a b", "x.y", "abcdefghijabcdefghijabcdefghijabc"} {
		_, err := FromEnv(func(key string) string { return map[string]string{EnvName: name}[key] })
		if !errors.Is(err, ErrName) {
			t.Errorf("name %q: got %v, want %v", name, err, ErrName)
		}
	}
	for _, key := range []string{EnvCache, EnvState} {
		if _, err := FromEnv(func(k string) string { return map[string]string{key: "relative"}[k] }); err == nil {
			t.Errorf("%s=relative: no error", key)
		}
	}
}
