// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package build

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/test/lab/internal/console"
	"github.com/sealane/sealane/test/lab/internal/paths"
)

// Builder builds targets into the cache, each once.
type Builder struct {
	programs, work string
	modules        sync.Mutex // one generated module may be that of several targets
	console        *console.Console
}

// New returns a builder that writes below p's cache.
func New(p paths.Paths, c *console.Console) *Builder {
	return &Builder{programs: p.Programs(), work: p.Work(), console: c}
}

// Dir is where t's programs are, once built.
func (b *Builder) Dir(t Target) string { return filepath.Join(b.programs, t.Key()) }

// Ensure builds the targets that are not there.
func (b *Builder) Ensure(ctx context.Context, targets []Target) error {
	missing := b.missing(targets)
	if len(missing) == 0 {
		return nil
	}
	unlock, err := b.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	missing = b.missing(targets) // another lab may just have built them
	for _, t := range missing {
		if err := EnsureTools(ctx, b.console, t.Tools); err != nil {
			return err
		}
	}
	return b.buildAll(ctx, missing)
}

// buildAll builds several targets at once where this machine can bear that.
func (b *Builder) buildAll(ctx context.Context, targets []Target) error {
	all := newProgress(targets, time.Now)
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce(runtime.NumCPU(), available()))
	for i, t := range targets {
		group.Go(func() error {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			name := fmt.Sprintf("build %s %s (%d of %d)", t.Name, t.Version, i+1, len(targets))
			all.begin(t)
			defer all.end(t)
			b.console.Say("%s …%s", name, all.left())
			return b.console.Progress(ctx, name, all.left, func(ctx context.Context) error { return b.build(ctx, t) })
		})
	}
	return group.Wait()
}

func (b *Builder) missing(targets []Target) []Target {
	var missing []Target
	for _, t := range targets {
		if _, err := os.Stat(b.Dir(t)); err != nil {
			missing = append(missing, t)
		}
	}
	return missing
}

// Lock waits until no other process writes to the cache.
func (b *Builder) Lock(ctx context.Context) (unlock func(), err error) {
	if err := os.MkdirAll(b.work, 0o755); err != nil {
		return nil, err
	}
	dir, err := os.Open(b.work)
	if err != nil {
		return nil, err
	}
	free := func() { dir.Close() }
	if syscall.Flock(int(dir.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil {
		return free, nil
	}
	err = b.console.Step(ctx, "wait for another build", func(ctx context.Context) error {
		got := make(chan error, 1)
		go func() { got <- syscall.Flock(int(dir.Fd()), syscall.LOCK_EX) }()
		select {
		case err := <-got:
			return err
		case <-ctx.Done():
			return ctx.Err()
		}
	})
	return free, err
}

// build makes t's programs in a directory beside the final one, which appears only when all are there.
func (b *Builder) build(ctx context.Context, t Target) error {
	logFile := filepath.Join(b.work, t.Name+".log")
	log, err := os.Create(logFile)
	if err != nil {
		return err
	}
	defer log.Close()
	fresh := filepath.Join(b.programs, ".new-"+t.Key())
	if err := os.RemoveAll(fresh); err != nil {
		return err
	}
	defer os.RemoveAll(fresh)
	if err := os.MkdirAll(fresh, 0o755); err != nil {
		return err
	}
	dir := "/"
	if t.Module != "" {
		if dir, err = b.module(ctx, t, log); err != nil {
			return err
		}
	}
	for _, one := range t.Builds {
		cmd := exec.CommandContext(ctx, "go", t.arguments(one, fresh)...)
		cmd.Dir, cmd.Stdout, cmd.Stderr = dir, log, log
		cmd.Env = append(os.Environ(), one.environment(fresh)...)
		cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) } // lets it end its compilers
		if err := cmd.Run(); err != nil {
			return fmt.Errorf("build %s: %w: %s (all of it: %s)", t.Name, err, lastLine(logFile), logFile)
		}
	}
	return os.Rename(fresh, b.Dir(t))
}

// module is the directory of t's generated module.
func (b *Builder) module(ctx context.Context, t Target, log io.Writer) (string, error) {
	b.modules.Lock()
	defer b.modules.Unlock()
	return b.generate(ctx, t, log)
}

func lastLine(file string) string {
	text, _ := os.ReadFile(file)
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return lines[len(lines)-1]
}
