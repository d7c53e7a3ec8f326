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

// Store keeps leases across restarts. A lease is identified by its addresses:
// at any time an address is in at most one stored lease that has not outlived
// its reuse delay.
type Store interface {
	// Put keeps the lease, and is durable when it returns nil; a release need not
	// be: a lease that a loss of power brings back blocks its addresses until it is
	// found to be stale. After an error the lease may be kept or not.
	Put(Lease) error
	// Delete forgets the lease with these addresses; none is no error. It need
	// not be durable: a released lease that comes back is released still.
	Delete(addrs []netip.Addr) error
	// Load returns everything that was kept.
	Load() (Contents, error)
}

// Contents is what a Store holds.
type Contents struct {
	Leases []Lease
	// Blocked are addresses of leases that can no longer be read. Whoever
	// holds them may live still, so they must not be given out.
	Blocked []netip.Addr
}

// FileStore is a Store of one JSON file per lease, named by its addresses.
type FileStore struct {
	dir string
	log *slog.Logger
}

// NewFileStore returns the store in dir, and makes dir if it is not there.
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
	// Either way power may be lost with an empty file in place: see Load.
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

// Load implements Store. A file that cannot be understood is renamed to
// <name>.corrupt, and the addresses in its name stay blocked until an operator
// deletes it. Remains of a crash are swept. An empty file is what a loss of power
// leaves of a lease that was just being given or released: as its pod is gone with
// all others, its addresses rest from now on.
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

// loadFile adds what the file says to c. Its error is one of reading, renaming
// or removing the file, not of the content.
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
		s.log.Warn("lease directory holds what is no lease; it is ignored", logPath, path)
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

// readLease reads the lease in the file called name, which must bear the name
// of the lease's addresses.
func (s *FileStore) readLease(name string) (Lease, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if err != nil {
		return Lease{}, fmt.Errorf("read lease: %w", err)
	}
	if addrs, ok := parseFileName(name); ok && len(data) == 0 {
		// A time to come becomes the time at which the allocator takes it over.
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

// quarantine sets the file called name aside and blocks its addresses.
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

// logBlocked tells the operator what a corrupt file costs and how to end it.
func (s *FileStore) logBlocked(path string, addrs []netip.Addr) {
	s.log.Warn("addresses of a corrupt lease file are not given out; "+
		"delete the file once no pod on this node has them", logPath, path, logAddresses, addrs)
}
