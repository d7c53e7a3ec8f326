// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam_test

import (
	"bytes"
	"errors"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni/ipam"
)

func TestFileStoreQuarantinesWhatItCannotRead(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ipam") // created by Open
	clock := newClock()
	a := open(t, dir, clock, "10.244.1.0/28", "fd00:1::/120")
	good, bad := allocate(t, a, "good"), allocate(t, a, "bad")
	badFile := filepath.Join(dir, "10.244.1.3_fd00:1::3.json")
	if err := os.WriteFile(badFile, []byte(`{"version":1,"cont`), 0o600); err != nil {
		t.Fatal(err)
	}

	var log bytes.Buffer
	a = openLogged(t, dir, clock, &log)
	if got, want := a.Leases(), []ipam.Lease{good}; !cmp.Equal(got, want, equateLeases()) {
		t.Errorf("leases = %v, want %v", got, want)
	}
	for _, say := range []string{"level=ERROR", "unexpected EOF", badFile + ".corrupt", "delete the file"} {
		if !strings.Contains(log.String(), say) {
			t.Errorf("log lacks %q:\n%s", say, log.String())
		}
	}
	wantNames(t, dir, "10.244.1.2_fd00:1::2.json", "10.244.1.3_fd00:1::3.json.corrupt")
	wantNeverGiven(t, a, bad.Addresses)

	// The addresses stay blocked after another restart, until the file is deleted.
	a = open(t, dir, clock, "10.244.1.0/28", "fd00:1::/120")
	wantNeverGiven(t, a, bad.Addresses)
	if err := os.Remove(badFile + ".corrupt"); err != nil {
		t.Fatal(err)
	}
	clock.advance(time.Minute)
	a = open(t, dir, clock, "10.244.1.0/28", "fd00:1::/120")
	if s := a.Stats()[0]; s.InUse != 1 {
		t.Errorf("%d addresses in use, want 1", s.InUse)
	}
}

// TestFileStoreLetsRemainsRest: a loss of power may leave an empty file of a lease that
// nobody was told of yet, or whose release was in progress.
func TestFileStoreLetsRemainsRest(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ipam")
	clock := newClock()
	a := open(t, dir, clock, "10.244.1.0/28", "fd00:1::/120")
	kept, lost := allocate(t, a, "kept"), allocate(t, a, "lost")
	if err := os.Truncate(filepath.Join(dir, "10.244.1.3_fd00:1::3.json"), 0); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	a = openLogged(t, dir, clock, &log)
	if got, want := a.Leases(), []ipam.Lease{kept}; !cmp.Equal(got, want, equateLeases()) {
		t.Errorf("leases = %v, want %v", got, want)
	}
	clock.advance(ipam.DefaultReuseDelay - time.Second)
	wantNeverGiven(t, a, lost.Addresses)
	clock.advance(10 * time.Minute)
	allocate(t, a, "next") // sweeps
	if s := a.Stats()[0]; s.InUse != 2 {
		t.Errorf("%d addresses in use, want 2", s.InUse)
	}
	if log.Len() != 0 {
		t.Errorf("nothing is wrong, but the log says:\n%s", log.String())
	}
}

func TestFileStoreIgnoresWhatIsNotALease(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{".sealane-tmp-77", "notes.txt"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("x"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "10.244.1.2.json"), 0o700); err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	a := openLogged(t, dir, newClock(), &log)
	if len(a.Leases()) != 0 {
		t.Errorf("leases = %v", a.Leases())
	}
	// The remains of a crash are deleted; foreign files stay.
	wantNames(t, dir, "10.244.1.2.json", "notes.txt")
	if !strings.Contains(log.String(), "notes.txt") {
		t.Errorf("log does not name the foreign file:\n%s", log.String())
	}
}

func TestFileStoreRefusesARenamedLease(t *testing.T) {
	dir := t.TempDir()
	clock := newClock()
	l := allocate(t, open(t, dir, clock, "10.244.1.0/28"), "a")
	moved := filepath.Join(dir, "10.244.1.9.json")
	if err := os.Rename(filepath.Join(dir, "10.244.1.2.json"), moved); err != nil {
		t.Fatal(err)
	}
	a := open(t, dir, clock, "10.244.1.0/28")
	if len(a.Leases()) != 0 {
		t.Errorf("a lease of %v was read from %s", l.Addresses, moved)
	}
	wantNames(t, dir, "10.244.1.9.json.corrupt")
	wantNeverGiven(t, a, []netip.Addr{netip.MustParseAddr("10.244.1.9")})
}

func TestFileStoreReportsTrouble(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ipam.Open(file, nil, ipam.Options{}); err == nil {
		t.Error("a file served as lease directory")
	}
	dir := filepath.Join(t.TempDir(), "gone")
	store, err := ipam.NewFileStore(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := store.Load(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("load: %v", err)
	}
	a, err := ipam.New(memStore{}, prefixes("10.244.1.0/28"), ipam.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := store.Put(allocate(t, a, "a")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("put: %v", err)
	}
}

// memStore is a Store in memory, by the addresses of the leases.
type memStore map[string]ipam.Lease

func key(addrs []netip.Addr) string {
	var texts []string
	for _, a := range addrs {
		texts = append(texts, a.String())
	}
	return strings.Join(texts, " ")
}

func (m memStore) Put(l ipam.Lease) error          { m[key(l.Addresses)] = l; return nil }
func (m memStore) Delete(addrs []netip.Addr) error { delete(m, key(addrs)); return nil }
func (m memStore) Load() (c ipam.Contents, _ error) {
	for _, l := range m {
		c.Leases = append(c.Leases, l)
	}
	return c, nil
}

func openLogged(t *testing.T, dir string, clock *clock, log *bytes.Buffer) *ipam.Allocator {
	t.Helper()
	a, err := ipam.Open(dir, prefixes("10.244.1.0/28", "fd00:1::/120"), ipam.Options{
		Clock: clock.now, Logger: slog.New(slog.NewTextHandler(log, nil)),
	})
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// wantNeverGiven fills the pools and fails if one of addrs is given out.
func wantNeverGiven(t *testing.T, a *ipam.Allocator, addrs []netip.Addr) {
	t.Helper()
	for i := 0; ; i++ {
		owner := ipam.Owner{ContainerID: "filler" + string(rune('A'+i)), IfName: "eth0"}
		l, err := a.Allocate(owner, ipam.Meta{})
		if errors.Is(err, ipam.ErrExhausted) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		defer a.Release(owner)
		for _, addr := range addrs {
			if slices.Contains(l.Addresses, addr) {
				t.Errorf("%v was given out", addr)
			}
		}
	}
}

func wantNames(t *testing.T, dir string, want ...string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	if diff := cmp.Diff(want, names); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}
