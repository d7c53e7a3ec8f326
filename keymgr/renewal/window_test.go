// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package renewal_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/keymgr/renewal"
)

func testWindow() renewal.Window {
	from := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	return renewal.Window{Root: "0a0b", From: from, To: from.Add(renewal.Span(1000))}
}

func TestWindowSpreads(t *testing.T) {
	w := testWindow()
	if d := w.To.Sub(w.From); d != 200*time.Second {
		t.Errorf("1000 nodes have %v, want 200 s", d)
	}
	if d := renewal.Span(3); d != 5*time.Second {
		t.Errorf("3 nodes have %v, want 5 s", d)
	}
	var early int
	for i := range 1000 {
		seed := fmt.Sprint("node ", i)
		m := w.Moment(seed)
		if m.Before(w.From) || !m.Before(w.To) || !m.Equal(w.Moment(seed)) {
			t.Fatalf("%s: %v is not in %v to %v, or changes", seed, m, w.From, w.To)
		}
		if m.Before(w.From.Add(100 * time.Second)) {
			early++
		}
	}
	if early < 400 || early > 600 {
		t.Errorf("%d of 1000 in the first half", early)
	}
}

func TestParseWindow(t *testing.T) {
	w := testWindow()
	data, err := w.Encode()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := renewal.ParseWindow(data); err != nil || cmp.Diff(w, got) != "" {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{
		"", "{}", "[]", `{"root":"zz","from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:06Z"}`,
		`{"root":"0a","from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:04Z"}`,
		`{"root":"0a","to":"2026-01-02T03:04:04Z"}`, string(data) + "{}", string(make([]byte, 2000)),
	} {
		if _, err := renewal.ParseWindow([]byte(bad)); !errors.Is(err, renewal.ErrWindow) {
			t.Errorf("%q: error %v, want ErrWindow", bad, err)
		}
	}
}

func FuzzParseWindow(f *testing.F) {
	data, err := testWindow().Encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(data)
	f.Add([]byte(`{"root":"0a","from":"2026-01-02T03:04:05Z","to":"2026-01-02T03:04:04Z"}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		w, err := renewal.ParseWindow(data)
		if err != nil {
			return
		}
		if m := w.Moment("seed"); m.Before(w.From) || m.After(w.To) {
			t.Errorf("moment %v is not in %v to %v", m, w.From, w.To)
		}
	})
}
