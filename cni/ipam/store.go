// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealane/sealane/internal/atomicfile"
)

const (
	leaseSuffix   = ".json"
	corruptSuffix = ".corrupt"

	logPath      = "path"
	logAddresses = "addresses"
	logOwner     = "owner"
	logError     = "error"
)

// Store keeps leases across restarts. The addresses of a lease identify it: at any time an
// address is in at most one stored lease whose reuse delay has not passed.
type Store interface {
	// Put stores the lease, durably when it returns nil. A release need not be durable: a
	// lease that reappears after a loss of power blocks its addresses until it is found to
	// be stale. After an error the lease may or may not be stored.
	Put(Lease) error
	// Delete deletes the lease with these addresses; a missing one is no error. The
	// deletion need not be durable: a released lease that reappears is still released.
	Delete(addrs []netip.Addr) error
	// Load returns everything in the store.
	Load() (Contents, error)
}

// Contents is what a Store holds.
type Contents struct {
	Leases []Lease
	// Blocked are addresses of leases that can no longer be read. Their owners may still
	// run, so these addresses must not be given out.
	Blocked []netip.Addr
}

// FileStore is a Store of one JSON file per lease, named by its addresses.
type FileStore struct {
	dir string
	log *slog.Logger
}

// NewFileStore returns the store in dir, and creates dir if it does not exist.
func NewFileStore(dir string, log *slog.Logger) (*FileStore, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create lease directory: %w", err)
	}
	return &FileStore{dir: dir, log: log}, nil
}

// Put implements Store.
func (s *FileStore) Put(l Lease) error {
	data, err := l.encode()
	if err != nil {
		return fmt.Errorf("encode lease of %s: %w", l.Owner, err)
	}
	// Either way a loss of power may leave an empty file: see Load.
	write := atomicfile.WriteThenSync
	if !l.Released.IsZero() {
		write = atomicfile.WriteUnsynced
	}
	return write(filepath.Join(s.dir, fileName(l.Addresses)), data, 0o600)
}

// Delete implements Store. It does not sync the directory: see Store.
func (s *FileStore) Delete(addrs []netip.Addr) error {
	err := os.Remove(filepath.Join(s.dir, fileName(addrs)))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("delete lease: %w", err)
	}
	return nil
}

// Load implements Store. It renames a file that it cannot understand to <name>.corrupt, and
// the addresses in its name stay blocked until an operator deletes the file. It deletes
// what a crash left. An empty file is what a loss of power leaves of a lease that was just
// being given or released: its pod is gone with all others, so the reuse delay of its
// addresses starts now.
func (s *FileStore) Load() (Contents, error) {
	entries, err := os.ReadDir(s.dir)
	if err != nil {
		return Contents{}, fmt.Errorf("read lease directory: %w", err)
	}
	var c Contents
	for _, e := range entries {
		if err := s.loadFile(e, &c); err != nil {
			return Contents{}, err
		}
	}
	return c, nil
}

// loadFile adds the content of the file to c. Its error is about reading, renaming or
// removing the file, not about the content.
func (s *FileStore) loadFile(file fs.DirEntry, c *Contents) error {
	name := file.Name()
	path := filepath.Join(s.dir, name)
	original, corrupt := strings.CutSuffix(name, corruptSuffix)
	switch {
	case atomicfile.IsTemp(name):
		return os.Remove(path)
	case corrupt:
		addrs, _ := parseFileName(original)
		s.logBlocked(path, addrs)
		c.Blocked = append(c.Blocked, addrs...)
		return nil
	case !file.Type().IsRegular() || !strings.HasSuffix(name, leaseSuffix):
		s.log.Warn("ignoring a file in the lease directory that is not a lease", logPath, path)
		return nil
	}
	lease, err := s.readLease(name)
	if errors.Is(err, ErrLease) {
		return s.quarantine(name, err, c)
	}
	if err != nil {
		return err
	}
	c.Leases = append(c.Leases, lease)
	return nil
}

// readLease reads the lease in the file called name, which must be the name for the lease's
// addresses.
func (s *FileStore) readLease(name string) (Lease, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return Lease{}, fmt.Errorf("read lease: %w", err)
	}
	if addrs, ok := parseFileName(name); ok && len(data) == 0 {
		// The allocator replaces a time in the future with the present time when it adopts
		// the lease.
		return Lease{Addresses: addrs, Released: time.Date(9999, 1, 1, 0, 0, 0, 0, time.UTC)}, nil
	}
	lease, err := ParseLease(data)
	if err != nil {
		return Lease{}, err
	}
	if want := fileName(lease.Addresses); want != name {
		return Lease{}, fmt.Errorf("%w: file name is %q, but the addresses inside say %q", ErrLease, name, want)
	}
	return lease, nil
}

// quarantine renames the file called name and blocks its addresses.
func (s *FileStore) quarantine(name string, cause error, c *Contents) error {
	path := filepath.Join(s.dir, name)
	aside := path + corruptSuffix
	if err := os.Rename(path, aside); err != nil {
		return fmt.Errorf("quarantine lease: %w", err)
	}
	addrs, _ := parseFileName(name)
	s.log.Error("lease file is corrupt and was set aside", logPath, aside, logError, cause)
	s.logBlocked(aside, addrs)
	c.Blocked = append(c.Blocked, addrs...)
	return nil
}

// logBlocked tells the operator what a corrupt file costs and how to end that.
func (s *FileStore) logBlocked(path string, addrs []netip.Addr) {
	s.log.Warn("addresses of a corrupt lease file are not given out; "+
		"delete the file once no pod on this node has them", logPath, path, logAddresses, addrs)
}
