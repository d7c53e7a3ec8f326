// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// attach runs a command with the caller's standard files and ends as it does. Signals are passed on: what runs on a
// node has a parent outside of it that does not, so that they go to the whole process group. At a terminal,
// which sends its own signals to everybody, the command stays in the group that the terminal listens to.
func attach(cmd *exec.Cmd) error {
	_, err := unix.IoctlGetTermios(int(os.Stdin.Fd()), unix.TCGETS)
	terminal := err == nil
	signals := make(chan os.Signal, 4)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer signal.Stop(signals)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	cmd.Cancel, cmd.WaitDelay = func() error { return os.ErrProcessDone }, 0
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: !terminal, Pdeathsig: syscall.SIGTERM}
	runtime.LockOSThread() // Pdeathsig means the end of the thread
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		return err
	}
	done := make(chan struct{})
	defer close(done)
	go passOn(signals, done, cmd.Process.Pid, terminal)
	if err := cmd.Wait(); err != nil {
		return fmt.Errorf("%w: %w", errRan, err)
	}
	return nil
}

func passOn(signals <-chan os.Signal, done <-chan struct{}, pid int, terminal bool) {
	for {
		select {
		case <-done:
			return
		case s := <-signals:
			number, ok := s.(syscall.Signal)
			switch {
			case !ok || terminal && s == os.Interrupt:
			case terminal:
				_ = syscall.Kill(pid, number)
			default:
				_ = syscall.Kill(-pid, number)
			}
		}
	}
}
