// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package machine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/sealane/sealane/test/lab/internal/cgroup"
)

// Words by which the lab's program calls itself; see [Main].
const (
	wordLaunch = "@launch"
	wordInit   = "@init"
	wordEnter  = "@enter"
)

const ready = "ready"

// outputDelay is how long the output of a command that was cut off is waited for: what it
// left running in the machine may hold it open, until the machine itself ends.
const outputDelay = 5 * time.Second

// Main runs the hidden commands of the lab's program. It reports false if args are none of them.
func Main(args []string) (bool, error) {
	if len(args) == 0 {
		return false, nil
	}
	switch {
	case args[0] == wordLaunch && len(args) == 2:
		return true, launch(args[1])
	case args[0] == wordInit && len(args) == 2:
		return true, runInit(args[1])
	case args[0] == wordEnter && len(args) > 2:
		return true, enter(args[1], args[2:])
	}
	return false, nil
}

// Launch starts a machine and returns when its network and file system are ready.
func Launch(ctx context.Context, tree cgroup.Tree, spec Spec) (*Machine, error) {
	if err := errors.Join(tree.Make(spec.Group), tree.MakeLeaf(spec.Group, groupInit), tree.MakeLeaf(spec.Group, groupDaemons)); err != nil {
		return nil, err
	}
	if err := errors.Join(os.MkdirAll(spec.Etc(), 0o755), os.MkdirAll(spec.Logs, 0o755)); err != nil {
		return nil, err
	}
	if err := spec.save(); err != nil {
		return nil, err
	}
	// A control group of version 1 can only be joined by a running process, and a
	// cgroup namespace begins where its first process is: hence a process between.
	var problem bytes.Buffer
	cmd := self(ctx, wordLaunch, specFile(spec.Dir))
	cmd.Stderr = &problem
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("launch %s: %w: %s", spec.Name, err, strings.TrimSpace(problem.String()))
	}
	tree.Delegate(spec.Group)
	pid, err := strconv.Atoi(string(out))
	if err != nil {
		return nil, fmt.Errorf("launch %s: %w", spec.Name, err)
	}
	if err := os.WriteFile(pidFile(spec.Dir), out, 0o600); err != nil {
		return nil, err
	}
	return &Machine{Spec: spec, PID: pid}, nil
}

// self is a command that runs the lab's program itself, also when its file has been replaced since.
func self(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "/proc/self/exe", args...)
	cmd.Args[0] = "sealane-lab"
	return cmd
}

// launch enters the machine's control group, starts its first process in new namespaces and prints its number.
func launch(specPath string) error {
	spec, err := load(specPath)
	if err != nil {
		return err
	}
	tree, err := cgroup.Open()
	if err != nil {
		return err
	}
	if err := tree.Join(spec.Group); err != nil {
		return err
	}
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	log, err := os.Create(filepath.Join(spec.Logs, "init.log"))
	if err != nil {
		return err
	}
	cmd := self(context.Background(), wordInit, specPath)
	cmd.Env = []string{"PATH=" + os.Getenv("PATH")}
	cmd.Stdout, cmd.Stderr = log, log
	cmd.ExtraFiles = []*os.File{write}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Cloneflags: cloneFlags(spec.Kind)}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start first process: %w", err)
	}
	write.Close()
	// The process joins its final group itself, but in a new pid namespace
	// and before it says that it is ready.
	said, err := io.ReadAll(read)
	if err != nil || string(said) != ready {
		return fmt.Errorf("first process of %s: %s (see %s)", spec.Name, said, log.Name())
	}
	fmt.Print(cmd.Process.Pid)
	return nil
}

func cloneFlags(kind Kind) uintptr {
	if kind == Wire {
		return syscall.CLONE_NEWNET
	}
	return syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID |
		syscall.CLONE_NEWUTS | syscall.CLONE_NEWIPC | syscall.CLONE_NEWCGROUP
}

// enter joins a control group and becomes the command.
func enter(group string, argv []string) error {
	tree, err := cgroup.Open()
	if err != nil {
		return err
	}
	if err := tree.Join(group); err != nil {
		return err
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		return err
	}
	return syscall.Exec(path, argv, os.Environ())
}

// Command is a command that runs on the machine: on a node in all its namespaces and with an environment
// of its own, on the wire only in its network namespace. It is in the machine's control group.
func (m *Machine) Command(ctx context.Context, argv ...string) *exec.Cmd {
	args := []string{wordEnter, filepath.Join(m.Spec.Group, groupDaemons), "nsenter", "-t", strconv.Itoa(m.PID), "--net"}
	if m.Spec.Kind == Node {
		args = append(args, "--mount", "--uts", "--ipc", "--pid", "--cgroup", "--", "env", "-i",
			"HOME=/root", "TERM="+os.Getenv("TERM"), "LAB_NODE="+m.Spec.Name, "PATH="+m.Spec.Path)
	} else {
		args = append(args, "--")
	}
	cmd := self(ctx, append(args, argv...)...)
	cmd.WaitDelay = outputDelay
	return cmd
}

// Run runs a command on the machine and returns what it printed; a failure carries it too.
func (m *Machine) Run(ctx context.Context, argv ...string) (string, error) {
	out, err := m.Command(ctx, argv...).CombinedOutput()
	if err != nil {
		return string(out), fmt.Errorf("%s: %s: %w: %s", m.Spec.Name, argv[0], err, strings.TrimSpace(string(out)))
	}
	return string(out), nil
}

// Network runs ip(8) with a list of commands in the machine's network namespace, and stops at the first that fails.
func (m *Machine) Network(ctx context.Context, commands []string) error {
	cmd := exec.CommandContext(ctx, "nsenter", "-t", strconv.Itoa(m.PID), "--net", "--", "ip", "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(commands, "\n") + "\n")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: set up network: %w: %s", m.Spec.Name, err, strings.TrimSpace(string(out)))
	}
	return nil
}
