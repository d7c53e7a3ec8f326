// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package archtest

import (
	"bytes"
	"io/fs"
	"regexp"
	"testing"
)

// unwanted are words that belong in no file of the repository. They are put
// together here so that this file does not hold them.
var unwanted = []struct {
	pattern *regexp.Regexp
	why     string
}{
	{regexp.MustCompile(`(?m)(^|[\s"'=(:` + "`" + `])/(wo` + `rk|ho` + `me|Us` + `ers)/[A-Za-z][A-Za-z0-9]`), "a path of somebody's machine"},
	{regexp.MustCompile(`\b(TO` + `DO|FIX` + `ME|XX` + `X)\b`), "work left undone; do it or file an issue"},
	{regexp.MustCompile(`(?i)\bnot (yet )?imple` + `mented\b`), "a stub"},
	{regexp.MustCompile(`(?m)^(<{7}|>{7}) `), "a merge left unfinished"},
}

func TestWords(t *testing.T) {
	err := walk(func(name string) error {
		src, err := fs.ReadFile(root(), name)
		if err != nil || bytes.IndexByte(src, 0) >= 0 {
			return err
		}
		for _, u := range unwanted {
			if !u.pattern.Match(src) {
				continue
			}
			for i, line := range bytes.Split(src, []byte("\n")) {
				if u.pattern.Match(line) {
					t.Errorf("%s:%d: %s: %s", name, i+1, u.why, bytes.TrimSpace(line))
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}
