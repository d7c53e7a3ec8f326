// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package backend

import (
	"encoding/json"
	"testing"
)

func TestNamesInJSON(t *testing.T) {
	for _, tc := range []struct {
		read  string
		want  Type
		write string
	}{
		{`"kernel"`, Kernel, `"kernel"`},
		{`"user-space"`, UserSpace, `"user-space"`},
		{`"userspace"`, UserSpace, `"user-space"`},
		{`"offloaded"`, "offloaded", `"offloaded"`},
		{`""`, "", `""`},
	} {
		var got Type
		if err := json.Unmarshal([]byte(tc.read), &got); err != nil || got != tc.want {
			t.Errorf("%s is read as %q, %v; want %q", tc.read, got, err, tc.want)
		}
		if raw, err := json.Marshal(got); err != nil || string(raw) != tc.write {
			t.Errorf("%q is written as %s, %v; want %s", got, raw, err, tc.write)
		}
	}
}
