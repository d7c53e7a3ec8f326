// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/test/lab/internal/console"
	"github.com/sealane/sealane/test/lab/internal/machine"
	"github.com/sealane/sealane/test/lab/internal/paths"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

// TestMain lets the lab start this program as the first process of a machine.
func TestMain(m *testing.M) {
	if mine, err := machine.Main(os.Args[1:]); mine {
		if err != nil {
			os.Stderr.WriteString(err.Error())
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// newLab returns a lab of its own name, which is brought down at the end. It asks for root and for a build of
// everything, hence it runs only where SEALANE_LAB_TEST=1 asks for it.
func newLab(t *testing.T, name string) (*Lab, paths.Paths) {
	t.Helper()
	if os.Getenv("SEALANE_LAB_TEST") != "1" {
		t.Skip("SEALANE_LAB_TEST=1 starts real clusters")
	}
	base, err := os.MkdirTemp("/var/lib", "sealane-lab-test-") //nolint:usetesting // /tmp may be in memory, which up refuses
	if err != nil {
		t.Fatal(err)
	}
	p, err := paths.FromEnv(os.Getenv)
	if err != nil {
		t.Fatal(err)
	}
	p.Base, p.Name = base, name
	lab, err := Open(p, console.New(t.Output()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := errors.Join(lab.Down(context.Background()), os.RemoveAll(base)); err != nil {
			t.Error(err)
		}
	})
	return lab, p
}

// trace is what a lab could leave behind on the machine.
type trace struct {
	Mounts  []string
	Devices []string
	State   []string
	Groups  bool
	Sysctls string
}

func look(t *testing.T, lab *Lab) trace {
	t.Helper()
	var tr trace
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(mounts)) {
		tr.Mounts = append(tr.Mounts, strings.Fields(line)[4])
	}
	slices.Sort(tr.Mounts)
	devices, err := net.Interfaces()
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range devices {
		tr.Devices = append(tr.Devices, d.Name)
	}
	state, _ := os.ReadDir(lab.paths.State())
	for _, e := range state {
		if e.Name() != "log" {
			tr.State = append(tr.State, e.Name())
		}
	}
	tr.Groups = lab.tree.Exists(lab.paths.Group())
	for _, name := range []string{"vm/overcommit_memory", "kernel/panic", "kernel/panic_on_oops"} {
		value, err := os.ReadFile(filepath.Join("/proc/sys", name))
		if err != nil {
			t.Fatal(err)
		}
		tr.Sysctls += string(value)
	}
	return tr
}

func small() plan.Options {
	return plan.Options{Nodes: 1, Families: plan.Dual, Proxy: "nftables", CNI: "none", MTU: 1500}
}

func TestPrivilegedUpDown(t *testing.T) {
	lab, _ := newLab(t, "labtest-updown")
	before := look(t, lab)
	if err := lab.Up(t.Context(), small()); err != nil {
		t.Fatal(err)
	}
	if err := lab.Up(t.Context(), small()); !errors.Is(err, ErrUp) {
		t.Errorf("up again: got %v, want %v", err, ErrUp)
	}
	for _, daemon := range small().Daemons(plan.Node{Name: "n1", Index: 1}) {
		if len(lab.running("n1")[daemon]) != 1 {
			t.Errorf("%s does not run", daemon)
		}
	}
	if err := lab.AddNode(t.Context(), "late"); err != nil {
		t.Fatal(err)
	}
	late, err := lab.Machine("late")
	if err != nil {
		t.Fatal(err)
	}
	for _, address := range []string{"172.30.0.11", "fd00:30::11"} {
		if _, err := late.Run(t.Context(), "bash", "-c", "exec 3<>/dev/tcp/"+address+"/6443"); err != nil {
			t.Errorf("%s: the new node cannot reach the API server: %v", address, err)
		}
	}
	if _, err := late.Run(t.Context(), "bash", "-c", "exec 3<>/dev/tcp/192.0.2.1/80"); err == nil {
		t.Error("something leads out of the lab")
	}
	if err := lab.Stop(t.Context(), "late", plan.Kubelet); err != nil {
		t.Error(err)
	}
	if err := lab.Start(t.Context(), "late", plan.Kubelet); err != nil {
		t.Error(err)
	}
	if err := lab.RemoveNode(t.Context(), "late"); err != nil {
		t.Error(err)
	}
	if _, err := lab.Machine("late"); !errors.Is(err, ErrNode) {
		t.Errorf("removed node: got %v, want %v", err, ErrNode)
	}
	for range 2 { // the second one finds nothing to do
		if err := lab.Down(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(before, look(t, lab)); diff != "" {
			t.Errorf("left behind: %s", diff)
		}
	}
}

// An "up" that is cut off at any moment leaves nothing.
func TestPrivilegedInterruptedUp(t *testing.T) {
	lab, _ := newLab(t, "labtest-cut")
	before := look(t, lab)
	for _, after := range []time.Duration{0, 20 * time.Millisecond, 80 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second, 6 * time.Second} {
		ctx, cancel := context.WithTimeout(t.Context(), after)
		err := lab.Up(ctx, small())
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			t.Fatalf("cut off after %s: got %v", after, err)
		}
		if diff := cmp.Diff(before, look(t, lab)); diff != "" {
			t.Errorf("cut off after %s, left behind: %s", after, diff)
		}
	}
}

// Two labs have the same addresses and the same node names, and do not notice each other.
func TestPrivilegedTwoLabs(t *testing.T) {
	one, _ := newLab(t, "labtest-one")
	two, _ := newLab(t, "labtest-two")
	if err := errors.Join(one.Up(t.Context(), small()), two.Up(t.Context(), small())); err != nil {
		t.Fatal(err)
	}
	if err := two.Down(t.Context()); err != nil {
		t.Fatal(err)
	}
	a, err := one.connect(small())
	if err != nil {
		t.Fatal(err)
	}
	if err := a.get(t.Context(), "/readyz", nil); err != nil {
		t.Errorf("the other lab's end hit this one: %v", err)
	}
}
