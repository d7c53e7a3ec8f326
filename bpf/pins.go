// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/bpf/pinned"
	"github.com/sealane/sealane/internal/nl"
)

// layout names the folder of the pins. It changes with the layout of a map,
// so that two versions of the daemon never read each other's maps wrongly.
const layout = "v3"

// layoutBefore is the layout with the same maps as this one under other names.
const layoutBefore = "v2"

// namesBefore returns the name that each map had in layoutBefore.
func namesBefore() map[string]string {
	return map[string]string{
		podMapSlEndpoints: "endpoints", podMapSlForwards: "forwards", podMapSlFlows: "flows", podMapSlDatagrams: "datagrams",
		podMapSlDrops: "drops", podMapSlPaths: "paths", podMapSlLeaks: "leaks",
		podMapSlIdentities: "identities", podMapSlBlocks: "blocks", podMapSlEpPolicies: "guards", podMapSlRuleSets: "sets",
		podMapSlRules: "rules", podMapSlPorts: "ports", podMapSlPolicyState: "settings", podMapSlDryRun: "trials",
		podMapSlVerdicts: "verdicts", podMapSlVerdictLost: "lost",
		podMapSlServices: "services", podMapSlBackends: "slots", podMapSlCtServices: "choices", podMapSlAffinities: "affinities",
	}
}

func (d *Datapath) makePins(root string) error {
	for _, dir := range []string{root, d.pins, d.linkPins()} {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return fmt.Errorf("make pin folder: %w", err)
		}
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(root, &fs); err != nil {
		return fmt.Errorf("stat pin folder %s: %w", root, err)
	}
	if fs.Type != unix.BPF_FS_MAGIC {
		return fmt.Errorf("pin folder %s: %w: mount one with `mount -t bpf bpf /sys/fs/bpf`", root, ErrNotBPFFS)
	}
	return nil
}

// Keep forgets the pinned links of every device that is not in names: devices that went
// away while no daemon ran.
func (d *Datapath) Keep(names map[string]bool) error {
	entries, err := os.ReadDir(d.linkPins())
	if err != nil {
		return fmt.Errorf("list pinned links: %w", err)
	}
	keep := map[string]bool{}
	for name := range names {
		for _, dir := range []nl.Direction{nl.Ingress, nl.Egress} {
			keep[filepath.Base(d.linkPin(name, dir))] = true
		}
	}
	var errs []error
	for _, e := range entries {
		if !keep[e.Name()] {
			errs = append(errs, removeIfPresent(filepath.Join(d.linkPins(), e.Name())))
		}
	}
	return errors.Join(errs...)
}

// linkPins returns the folder of links, which is the same for every layout of the maps:
// programs of the next layout replace those of the previous one.
func (d *Datapath) linkPins() string { return filepath.Join(filepath.Dir(d.pins), "links") }

// Retire removes the maps of other layouts, and what they pin. Call it after replacing all
// programs that an earlier version attached.
func (d *Datapath) Retire() error {
	others, err := d.otherLayouts()
	errs := []error{err}
	for _, old := range others {
		errs = append(errs, os.RemoveAll(old))
	}
	return errors.Join(errs...)
}

// otherLayouts returns the folders with the maps of other versions.
func (d *Datapath) otherLayouts() ([]string, error) {
	root := filepath.Dir(d.pins)
	entries, err := os.ReadDir(root)
	if err != nil {
		return nil, fmt.Errorf("list pins: %w", err)
	}
	var all []string
	for _, e := range entries {
		if old := filepath.Join(root, e.Name()); old != d.pins && old != d.linkPins() {
			all = append(all, old)
		}
	}
	return all, nil
}

// Inherited reports whether an earlier daemon used exactly the maps of this one, and no
// others are left. Then the attached programs know what this daemon's programs will know,
// policies above all.
func (d *Datapath) Inherited() bool { return d.inherited }

// inherits computes Inherited before this daemon creates maps. It adopts the maps of
// layoutBefore: connections, policies and services stay the same for the attached programs
// and for those that replace them. The old pins stay until [Datapath.Retire], in case an
// earlier version returns before.
func (d *Datapath) inherits() (bool, error) {
	adopted, err := pinned.Adopt(filepath.Join(filepath.Dir(d.pins), layoutBefore), d.pins, namesBefore())
	if err != nil {
		return false, err
	}
	found, err := os.ReadDir(d.pins)
	if err != nil {
		return false, fmt.Errorf("list pins: %w", err)
	}
	others, err := d.otherLayouts()
	if adopted {
		others = slices.DeleteFunc(others, func(dir string) bool { return filepath.Base(dir) == layoutBefore })
	}
	return len(found) > 0 && len(others) == 0, err
}

// linkPin names a pin after device and direction. A device's name may contain a dot, which
// a bpffs refuses, and never a colon, so a doubled colon can stand for it.
func (d *Datapath) linkPin(name string, dir nl.Direction) string {
	return filepath.Join(d.linkPins(), strings.ReplaceAll(name, ".", "::")+":"+dir.String())
}

func removeIfPresent(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Clean removes every pin under pinPath; programs end with their last reference. It needs
// no loaded Datapath. On kernels without tcx, remove the filters with
// [nl.Handle.DetachClsact].
func Clean(pinPath string) error {
	if err := os.RemoveAll(pinPath); err != nil {
		return fmt.Errorf("remove pins: %w", err)
	}
	return nil
}
