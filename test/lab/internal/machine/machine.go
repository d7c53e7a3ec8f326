// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package machine makes the lab's machines: sets of namespaces that behave like computers of their own.
// A machine lives exactly as long as its first process. Nothing of it is mounted, named or bound outside
// of its namespaces, so that ending the processes of its control group ends every trace of it.
package machine

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/sealane/sealane/test/lab/internal/cgroup"
)

// ErrDown means that a machine's first process is not running.
var ErrDown = errors.New("machine is not running")

// Kind tells what a machine is made of.
type Kind string

const (
	// Node has network, mount, pid, uts, ipc and cgroup namespaces and a root file system of its own.
	Node Kind = "node"
	// Wire has only a network namespace: the switch between the nodes.
	Wire Kind = "wire"
)

// Spec describes a machine to its first process.
type Spec struct {
	Kind     Kind
	Name     string            // also the host name
	Group    string            // control group, below every hierarchy
	Dir      string            // of this machine alone, on a real disk
	Logs     string            // shown at /var/log/lab
	Programs string            // shown at /opt/lab
	Images   string            // shown at /opt/images
	Path     string            // PATH of what runs on the node
	Plugins  []string          // files to copy to /opt/cni/bin
	Hide     []string          // directories of the real machine that a node must find empty
	Sysctls  map[string]string // below /proc/sys, of the network namespace
}

// Names of the control groups within a machine's own.
const (
	groupInit    = "init"    // the first process
	groupDaemons = "daemons" // everything that is started on the machine
)

// Machine is a running machine.
type Machine struct {
	Spec Spec
	PID  int // of the first process, as seen from outside
}

func specFile(dir string) string { return filepath.Join(dir, "spec.json") }
func pidFile(dir string) string  { return filepath.Join(dir, "pid") }

// Etc is the directory that a node sees as /etc/kubernetes.
func (s Spec) Etc() string { return filepath.Join(s.Dir, "etc") }

func (s Spec) save() error {
	text, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(specFile(s.Dir), text, 0o600)
}

func load(path string) (Spec, error) {
	var s Spec
	text, err := os.ReadFile(path)
	if err != nil {
		return s, err
	}
	if err := json.Unmarshal(text, &s); err != nil {
		return s, fmt.Errorf("read %s: %w", path, err)
	}
	return s, nil
}

// Find returns the machine whose directory is dir, or [ErrDown].
func Find(tree cgroup.Tree, dir string) (*Machine, error) {
	spec, err := load(specFile(dir))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	text, err := os.ReadFile(pidFile(dir))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDown, err)
	}
	pid, err := strconv.Atoi(string(text))
	// The number could belong to somebody else by now; the control group cannot.
	if err != nil || !tree.Has(filepath.Join(spec.Group, groupInit), pid) {
		return nil, fmt.Errorf("%w: %s", ErrDown, spec.Name)
	}
	return &Machine{Spec: spec, PID: pid}, nil
}

// Namespace returns the path of one of the machine's namespaces, such as "net".
func (m *Machine) Namespace(kind string) string {
	return filepath.Join("/proc", strconv.Itoa(m.PID), "ns", kind)
}
