// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package machine

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/test/lab/internal/cgroup"
)

func TestMainLeavesOthersAlone(t *testing.T) {
	for _, args := range [][]string{nil, {"up"}, {wordLaunch}, {wordInit, "a", "b"}, {wordEnter, "group"}} {
		if mine, err := Main(args); mine || err != nil {
			t.Errorf("%q: %t %v", args, mine, err)
		}
	}
}

func TestSpecSurvives(t *testing.T) {
	want := Spec{Kind: Node, Name: "n1", Group: "lab/n1", Dir: t.TempDir(), Plugins: []string{"/a"}, Sysctls: map[string]string{"k": "v"}}
	if err := want.save(); err != nil {
		t.Fatal(err)
	}
	got, err := load(specFile(want.Dir))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// A process that merely has the remembered number is not the machine.
func TestFind(t *testing.T) {
	dir, hierarchy := t.TempDir(), t.TempDir()
	tree := cgroup.Tree{{Path: hierarchy}}
	if _, err := Find(tree, dir); !errors.Is(err, ErrDown) {
		t.Errorf("nothing there: got %v, want %v", err, ErrDown)
	}
	if err := (Spec{Name: "n1", Group: "lab/n1", Dir: dir}).save(); err != nil {
		t.Fatal(err)
	}
	pid := strconv.Itoa(os.Getpid())
	if err := os.WriteFile(pidFile(dir), []byte(pid), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Find(tree, dir); !errors.Is(err, ErrDown) {
		t.Errorf("somebody else's process: got %v, want %v", err, ErrDown)
	}
	init := filepath.Join(hierarchy, "lab/n1/init")
	if err := errors.Join(os.MkdirAll(init, 0o755), os.WriteFile(filepath.Join(init, "cgroup.procs"), []byte(pid+"\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	m, err := Find(tree, dir)
	if err != nil || m.PID != os.Getpid() || m.Namespace("net") != "/proc/"+pid+"/ns/net" {
		t.Errorf("got %+v %v", m, err)
	}
}

func TestCommand(t *testing.T) {
	t.Setenv("TERM", "vt100")
	node := Machine{Spec: Spec{Kind: Node, Name: "n1", Group: "lab/n1", Path: "/opt/lab:/bin"}, PID: 42}
	wire := Machine{Spec: Spec{Kind: Wire, Name: "wire", Group: "lab/wire"}, PID: 43}
	for want, m := range map[string]Machine{
		"sealane-lab @enter lab/n1/daemons nsenter -t 42 --net --mount --uts --ipc --pid --cgroup -- " +
			"env -i HOME=/root TERM=vt100 LAB_NODE=n1 PATH=/opt/lab:/bin ls -l": node,
		"sealane-lab @enter lab/wire/daemons nsenter -t 43 --net -- ls -l": wire,
	} {
		if got := strings.Join(m.Command(t.Context(), "ls", "-l").Args, " "); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// A wire shares the machine's files and processes; a node shares nothing but the kernel.
func TestCloneFlags(t *testing.T) {
	if got := cloneFlags(Wire); got != syscall.CLONE_NEWNET {
		t.Errorf("wire: %#x", got)
	}
	for _, flag := range []uintptr{syscall.CLONE_NEWNET, syscall.CLONE_NEWNS, syscall.CLONE_NEWPID, syscall.CLONE_NEWUTS, syscall.CLONE_NEWIPC, syscall.CLONE_NEWCGROUP} {
		if cloneFlags(Node)&flag == 0 {
			t.Errorf("node shares namespace %#x", flag)
		}
	}
}
