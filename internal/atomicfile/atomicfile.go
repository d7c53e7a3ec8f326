// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package atomicfile replaces files so that a reader, or a reboot, sees either the whole
// old content or the whole new content.
//
// Everything that Sealane keeps on disk uses this package: leases, keys, sequence marks,
// the CNI configuration. A crash can leave a temporary file behind; IsTemp recognises it,
// so that readers of a directory can skip or delete it.
package atomicfile

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// tempPrefix begins the name of every temporary file. The leading dot keeps programs that
// scan a directory, such as a CNI runtime, from reading it.
const tempPrefix = ".sealane-tmp-"

// Write replaces the file at path by data with exactly the permissions perm,
// whatever the umask. It writes a temporary file in the same directory, syncs
// it, renames it over path and syncs the directory, so that after a nil return
// the new content survives a loss of power. After an error from any step but
// the last, path is as it was; if only the sync of the directory failed, path
// already holds the new content and may or may not survive a loss of power.
func Write(path string, data []byte, perm fs.FileMode) error {
	if err := replace(path, data, perm, (*os.File).Sync); err != nil {
		return err
	}
	return syncDir(filepath.Dir(path))
}

// WriteThenSync replaces the file as Write does, with one sync instead of two: that of the
// file under its final name. ext4, XFS and Btrfs commit the name with it. If power is lost
// before WriteThenSync returns, path may be empty afterwards, and the reader must cope with
// that.
func WriteThenSync(path string, data []byte, perm fs.FileMode) error {
	if err := WriteUnsynced(path, data, perm); err != nil {
		return err
	}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return fmt.Errorf("open file to sync it: %w", err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("sync %s: %w", path, err)
	}
	return nil
}

// WriteUnsynced replaces the file at once for all processes, but does not wait for the
// disk: after a loss of power path may hold the old content, the new content, or nothing.
func WriteUnsynced(path string, data []byte, perm fs.FileMode) error {
	return replace(path, data, perm, func(*os.File) error { return nil })
}

// replace writes a temporary file, calls sync on it, and renames it over path.
func replace(path string, data []byte, perm fs.FileMode, sync func(*os.File) error) error {
	temp, err := os.CreateTemp(filepath.Dir(path), tempPrefix)
	if err != nil {
		return fmt.Errorf("create temporary file for %s: %w", path, err)
	}
	if err := fill(temp, data, perm, sync); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", path, err), os.Remove(temp.Name()))
	}
	if err := os.Rename(temp.Name(), path); err != nil {
		return errors.Join(fmt.Errorf("replace %s: %w", path, err), os.Remove(temp.Name()))
	}
	return nil
}

// Remove deletes the file at path and syncs its directory. A file that does
// not exist is no error.
func Remove(path string) error {
	err := os.Remove(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("remove file: %w", err)
	}
	return syncDir(filepath.Dir(path))
}

// IsTemp reports whether name, the last element of a path, is the name of a temporary file
// of Write. If its writer is gone, the file is left over from a crash and can be deleted.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, tempPrefix)
}

// fill writes the temporary file, calls sync on it, and always closes it.
func fill(f *os.File, data []byte, perm fs.FileMode, sync func(*os.File) error) error {
	_, err := f.Write(data)
	if err == nil {
		err = f.Chmod(perm)
	}
	if err == nil {
		err = sync(f)
	}
	return errors.Join(err, f.Close())
}

// syncDir makes a rename or a removal in dir durable.
func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("open directory to sync it: %w", err)
	}
	if err := errors.Join(d.Sync(), d.Close()); err != nil {
		return fmt.Errorf("sync directory %s: %w", dir, err)
	}
	return nil
}
