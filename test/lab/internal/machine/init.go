// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package machine

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/test/lab/internal/cgroup"
)

// runInit is the first process of a machine: it sets up, says so on descriptor 3, and then only reaps.
func runInit(specPath string) error {
	say := os.NewFile(3, "ready")
	err := setUp(specPath)
	if err != nil {
		fmt.Fprint(say, err)
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	child := make(chan os.Signal, 1)
	signal.Notify(child, syscall.SIGCHLD)
	fmt.Fprint(say, ready)
	say.Close()
	for {
		select {
		case <-stop:
			return nil
		case <-child:
			reap()
		}
	}
}

// reap collects every process that has ended. Orphans of a node become children of its first process.
func reap() {
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		if pid <= 0 && !errors.Is(err, syscall.EINTR) {
			return
		}
	}
}

func setUp(specPath string) error {
	syscall.CloseOnExec(3)
	spec, err := load(specPath)
	if err != nil {
		return err
	}
	tree, err := cgroup.Open()
	if err != nil {
		return err
	}
	if err := tree.Join(filepath.Join(spec.Group, groupInit)); err != nil {
		return err
	}
	if out, err := exec.Command("ip", "link", "set", "lo", "up").CombinedOutput(); err != nil {
		return fmt.Errorf("set lo up: %w: %s", err, out)
	}
	if err := setSysctls(spec.Sysctls); err != nil {
		return err
	}
	if spec.Kind == Wire {
		return nil
	}
	if err := buildRoot(spec, tree); err != nil {
		return err
	}
	return unix.Sethostname([]byte(spec.Name))
}

// setSysctls writes settings of the calling process's network namespace; those of modules that are not there are left out.
func setSysctls(settings map[string]string) error {
	for key, value := range settings {
		err := os.WriteFile(filepath.Join("/proc/sys", key), []byte(value), 0o644)
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("set sysctl: %w", err)
		}
	}
	return nil
}
