// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/sealane/sealane/internal/atomicfile"
)

const (
	queueSuffix = ".json"
	// queueSeparator never occurs in a container ID; interface names may contain it.
	queueSeparator = "@"
	// abandonedAfter is the age from which a temporary file's writer must be dead.
	abandonedAfter = time.Minute
)

// Queue keeps DELs that the daemon could not carry out, one file per attachment. Several
// processes may use it at once.
type Queue struct {
	// Dir is created by the first Put; empty means DefaultQueueDir.
	Dir string
	// Logger receives reports of damaged files; nil discards them.
	Logger *slog.Logger
}

// Put keeps the DEL until Remove or Drain.
func (q Queue) Put(r Request) error {
	if err := r.id().validate(); err != nil {
		return err
	}
	data, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode request: %w", err)
	}
	if err := os.MkdirAll(q.dir(), 0o700); err != nil {
		return fmt.Errorf("create queue directory: %w", err)
	}
	return atomicfile.Write(q.path(r.id()), data, 0o600)
}

// Remove deletes the DEL of the attachment; a missing one is no error.
func (q Queue) Remove(id AttachmentID) error { return atomicfile.Remove(q.path(id)) }

// Len returns how many DELs are kept.
func (q Queue) Len() (int, error) {
	files, err := filepath.Glob(filepath.Join(q.dir(), "[^.]*"+queueSeparator+"*"))
	return len(files), err
}

// Drain calls del for each kept request, and deletes those for which it returns nil. A
// request whose file is damaged is carried out too, as far as the name of the file
// identifies it. The error joins those of del; an error does not keep other requests from
// being tried.
func (q Queue) Drain(ctx context.Context, del func(context.Context, Attachment) error) error {
	entries, err := os.ReadDir(q.dir())
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read queue directory: %w", err)
	}
	var errs []error
	for _, e := range entries {
		if ctx.Err() != nil {
			errs = append(errs, fmt.Errorf("drain queue: %w", ctx.Err()))
			break
		}
		errs = append(errs, q.drainFile(ctx, e, del))
	}
	return errors.Join(errs...)
}

// drainFile carries out the request in one file, or sweeps a file that holds none.
func (q Queue) drainFile(ctx context.Context, file fs.DirEntry, del func(context.Context, Attachment) error) error {
	path := filepath.Join(q.dir(), file.Name())
	if atomicfile.IsTemp(file.Name()) {
		return sweep(path, file)
	}
	id, ok := parseQueueName(file.Name())
	if !ok {
		q.log().Warn("ignoring a file in the queue directory that is not a request", logPath, path)
		return nil
	}
	a, err := readQueued(path, id)
	if err != nil {
		q.log().Error("queued DEL is damaged; carrying it out according to its file name", logPath, path, logError, err)
		a = Attachment{ContainerID: id.ContainerID, IfName: id.IfName}
	}
	if err := del(ctx, a); err != nil {
		return fmt.Errorf("carry out queued DEL of %s %s: %w", id.ContainerID, id.IfName, err)
	}
	return q.Remove(id)
}

// readQueued reads the request about id from the file at path.
func readQueued(path string, id AttachmentID) (Attachment, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return Attachment{}, err
	}
	var r Request
	if err := json.Unmarshal(data, &r); err != nil {
		return Attachment{}, err
	}
	if r.id() != id || r.Command != CommandDel {
		return Attachment{}, fmt.Errorf("it is a %s of %q %q", r.Command, r.ContainerID, r.IfName)
	}
	return r.attachment()
}

// sweep removes a temporary file whose writer was killed.
func sweep(path string, file fs.DirEntry) error {
	info, err := file.Info()
	if errors.Is(err, fs.ErrNotExist) || err == nil && time.Since(info.ModTime()) < abandonedAfter {
		return nil // in use, or just renamed
	}
	if err != nil {
		return fmt.Errorf("sweep queue: %w", err)
	}
	return atomicfile.Remove(path)
}

func (q Queue) dir() string {
	if q.Dir == "" {
		return DefaultQueueDir
	}
	return q.Dir
}

func (q Queue) log() *slog.Logger {
	if q.Logger == nil {
		return slog.New(slog.DiscardHandler)
	}
	return q.Logger
}

// path returns where the DEL of an attachment is kept.
func (q Queue) path(id AttachmentID) string {
	return filepath.Join(q.dir(), id.ContainerID+queueSeparator+id.IfName+queueSuffix)
}

// parseQueueName is the inverse of path for the last element.
func parseQueueName(name string) (id AttachmentID, ok bool) {
	base, ok := strings.CutSuffix(name, queueSuffix)
	if !ok {
		return AttachmentID{}, false
	}
	id.ContainerID, id.IfName, _ = strings.Cut(base, queueSeparator)
	return id, id.validate() == nil
}
