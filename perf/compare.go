// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// comparisonConfig is what "run" is told.
type comparisonConfig struct {
	lab         string            // the program test/lab/lab
	labs        map[string]string // names of labs, by subject
	wireguardGo string            // upstream's program
	rounds      int
	limits      limits
	version     string // of Sealane
	output      string // file for the report; empty: none
}

// compare measures everything and prints the report on w, and what it is at on progress.
func compare(ctx context.Context, c comparisonConfig, w, progress io.Writer) (err error) {
	all, closing, err := c.subjects(ctx)
	defer func() { err = errors.Join(err, closing()) }()
	if err != nil {
		return err
	}
	r := newResults(c.rounds)
	r.withoutFlannel = c.withoutFlannel()
	failed := r.measure(ctx, all, c, progress)
	var report bytes.Buffer
	fmt.Fprintf(&report, "# Sealane beside flannel\n\n%s\n", c.conditions())
	if err := r.write(&report); err != nil {
		return err
	}
	if _, err := w.Write(report.Bytes()); err != nil {
		return err
	}
	if c.output != "" {
		failed = errors.Join(failed, os.MkdirAll(filepath.Dir(c.output), 0o755), os.WriteFile(c.output, report.Bytes(), 0o644))
	}
	if missing := r.missing(); len(missing) > 0 {
		failed = errors.Join(failed, fmt.Errorf("%w: %s", ErrIncomplete, strings.Join(missing, ", ")))
	}
	return failed
}

// measure takes every step with every subject in turn, and the subjects in the
// other order in every other round, so that what changes slowly hits all alike. A
// step that fails leaves its cells empty, and the others go on.
func (r *results) measure(ctx context.Context, all []subject, c comparisonConfig, progress io.Writer) error {
	var errs []error
	for round := range r.rounds {
		for _, step := range steps() {
			for _, s := range all {
				if !step.fits(s) || ctx.Err() != nil {
					continue
				}
				measured, err := step.run(ctx, s, c.limits)
				if err != nil {
					err = fmt.Errorf("round %d, %s of %s: %w", round+1, step.name, s.name, err)
					fmt.Fprintln(progress, "perf:", err)
					errs = append(errs, err)
					continue
				}
				r.set(round, s.name, measured)
				fmt.Fprintf(progress, "round %d/%d  %-36s %-20s%s\n", round+1, r.rounds, step.name, s.name, values(measured))
			}
		}
		slices.Reverse(all)
	}
	return errors.Join(append(errs, ctx.Err())...)
}

func values(measured map[string]float64) string {
	var out strings.Builder
	for _, id := range slices.Sorted(maps.Keys(measured)) {
		fmt.Fprintf(&out, " %s=%s", id[strings.LastIndex(id, "/")+1:], number(measured[id]))
	}
	return out.String()
}

// withoutFlannel reports whether Sealane alone is measured.
func (c comparisonConfig) withoutFlannel() bool { return c.labs[flannel] == "none" }

// conditions says under what the numbers hold.
func (c comparisonConfig) conditions() string {
	kernel, _ := os.ReadFile("/proc/sys/kernel/osrelease") // empty if unknown
	cpus, _ := os.ReadFile("/proc/cpuinfo")
	model, count := "processor", 0
	for line := range strings.Lines(string(cpus)) {
		key, value, _ := strings.Cut(line, ":")
		switch strings.TrimSpace(key) {
		case "processor":
			count++
		case "model name":
			model = strings.TrimSpace(value)
		}
	}
	return fmt.Sprintf("%s. Sealane %s; flannel v0.26.7 (VXLAN) with the bridge plugin. Linux %s, %d × %s.\n"+
		"Rounds: %d; streams of %s; %d pods one by one, %d at once. Cells: median of the rounds. Ratios: median (least…greatest)\n"+
		"of the ratios within each round. ↑ more is better, ↓ less is.\n",
		time.Now().UTC().Format(time.DateOnly), c.version, strings.TrimSpace(string(kernel)), count, model,
		c.rounds, c.limits.length, c.limits.adds, c.limits.pods)
}
