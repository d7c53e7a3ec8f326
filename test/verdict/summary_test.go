// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestSummary(t *testing.T) {
	for _, tc := range []struct {
		name string
		in   []string
		want string
		err  error
	}{
		{
			name: "pass, skip with its reason, and a line that is no event",
			in: []string{
				"go: downloading something v1.0.0",
				`{"Action":"start","Package":"p"}`,
				`{"Action":"run","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestA","Output":"quiet\n"}`,
				`{"Action":"pass","Package":"p","Test":"TestA","Elapsed":0.1}`,
				`{"Action":"output","Package":"p","Test":"TestB","Output":"    b_test.go:7: needs root\n"}`,
				`{"Action":"output","Package":"p","Test":"TestB","Output":"--- SKIP: TestB (0.00s)\n"}`,
				`{"Action":"skip","Package":"p","Test":"TestB"}`,
				`{"Action":"pass","Package":"p","Elapsed":1.25}`,
				`{"Action":"skip","Package":"without/tests"}`,
			},
			want: `go: downloading something v1.0.0
ok    p (1.2s): 1 passed, 0 failed, 1 skipped
skip  p TestB: b_test.go:7: needs root
1 passed, 0 failed, 1 skipped
`,
		},
		{
			name: "a failed test shows its output once",
			in: []string{
				`{"Action":"output","Package":"p","Test":"TestA","Output":"    a_test.go:3: got 1, want 2\n"}`,
				`{"Action":"fail","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Output":"FAIL\n"}`,
				`{"Action":"fail","Package":"p","Elapsed":0.5}`,
			},
			want: `FAIL  p TestA
        a_test.go:3: got 1, want 2
FAIL  p (0.5s)
0 passed, 1 failed, 0 skipped
`,
			err: errFailed,
		},
		{
			name: "a package that does not build is one failure",
			in: []string{
				`{"ImportPath":"p","Action":"build-output","Output":"a.go:1: undefined: x\n"}`,
				`{"ImportPath":"p","Action":"build-fail"}`,
				`{"Action":"output","Package":"p","Output":"FAIL\tp [build failed]\n"}`,
				`{"Action":"fail","Package":"p","Elapsed":0}`,
				`{"Action":"pass","Package":"q","Test":"TestA"}`,
				`{"Action":"pass","Package":"q","Elapsed":0}`,
			},
			want: `a.go:1: undefined: x
FAIL  p (0.0s)
    FAIL	p [build failed]
ok    q (0.0s): 1 passed, 0 failed, 0 skipped
1 passed, 1 failed, 0 skipped
`,
			err: errFailed,
		},
		{
			name: "a panic shows the unfinished test",
			in: []string{
				`{"Action":"pass","Package":"p","Test":"TestA"}`,
				`{"Action":"output","Package":"p","Test":"TestB","Output":"panic: boom\n"}`,
				`{"Action":"output","Package":"p","Output":"FAIL\tp\t0.1s\n"}`,
				`{"Action":"fail","Package":"p","Elapsed":0.1}`,
			},
			want: `FAIL  p (0.1s)
    FAIL	p	0.1s
    panic: boom
1 passed, 1 failed, 0 skipped
`,
			err: errFailed,
		},
		{
			name: "nothing ran",
			in:   []string{`{"Action":"skip","Package":"p"}`},
			want: "0 passed, 0 failed, 0 skipped\n",
			err:  errNone,
		},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var out strings.Builder
			totals := filepath.Join(t.TempDir(), "totals")
			err := run([]string{"-totals", totals}, strings.NewReader(strings.Join(tc.in, "\n")), &out)
			if !errors.Is(err, tc.err) {
				t.Errorf("run() = %v, want %v", err, tc.err)
			}
			if diff := cmp.Diff(tc.want, out.String()); diff != "" {
				t.Errorf("output (-want +got):\n%s", diff)
			}
			written, err := os.ReadFile(totals)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.HasSuffix(tc.want, string(written)) {
				t.Errorf("totals file holds %q, want the last line of the output", written)
			}
		})
	}
}

func TestRunRefusesUnknownFlag(t *testing.T) {
	if err := run([]string{"-nonsense"}, strings.NewReader(""), &strings.Builder{}); err == nil {
		t.Error("run accepted -nonsense")
	}
}
