// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package paths says where the lab keeps its files.
package paths

import (
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
)

// ErrName means that the lab's name cannot be part of the name of a directory and a control group.
var ErrName = errors.New("bad lab name")

// Environment variables that move the lab's files or give it another name.
const (
	EnvCache = "SEALANE_CACHE"    // built programs and images; default ~/.cache/sealane
	EnvState = "SEALANE_LAB"      // running clusters; default /var/lib/sealane-lab, must be a real disk
	EnvName  = "SEALANE_LAB_NAME" // name of this lab; default sealane
)

// Paths are the directories of one lab.
type Paths struct {
	Name  string // of the lab
	Cache string // survives, may be deleted at any time
	Base  string // holds the state of all labs
}

// FromEnv reads the environment through getenv.
func FromEnv(getenv func(string) string) (Paths, error) {
	or := func(key, other string) string {
		if v := getenv(key); v != "" {
			return v
		}
		return other
	}
	p := Paths{
		Name:  or(EnvName, "sealane"),
		Cache: filepath.Join(or(EnvCache, filepath.Join(or("HOME", "/root"), ".cache", "sealane")), "lab"),
		Base:  or(EnvState, "/var/lib/sealane-lab"),
	}
	if !regexp.MustCompile(`^[a-z][a-z0-9-]{0,30}$`).MatchString(p.Name) {
		return Paths{}, fmt.Errorf("%w: %s=%q: want lower-case letters, digits and dashes", ErrName, EnvName, p.Name)
	}
	for key, dir := range map[string]string{EnvCache: p.Cache, EnvState: p.Base} {
		if !filepath.IsAbs(dir) {
			return Paths{}, fmt.Errorf("%s: %q is not an absolute path", key, dir)
		}
	}
	return p, nil
}

// Programs holds one directory per built target.
func (p Paths) Programs() string { return filepath.Join(p.Cache, "bin") }

// Images holds one directory per set of container images.
func (p Paths) Images() string { return filepath.Join(p.Cache, "images") }

// Work holds generated modules and the logs of builds.
func (p Paths) Work() string { return filepath.Join(p.Cache, "build") }

// State holds everything of a running lab, and the logs of the last one.
func (p Paths) State() string { return filepath.Join(p.Base, p.Name) }

// Logs survives "down", until the next "up".
func (p Paths) Logs() string { return filepath.Join(p.State(), "log") }

// PKI holds the cluster's keys and certificates.
func (p Paths) PKI() string { return filepath.Join(p.State(), "pki") }

// Nodes holds one directory per node.
func (p Paths) Nodes() string { return filepath.Join(p.State(), "nodes") }

// Group is the lab's control group, below the root of each hierarchy.
func (p Paths) Group() string { return p.Name + "-lab" }
