// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
)

// podNets are the lab's pod ranges, as a capture filter names them.
const podNets = "net 10.244.0.0/16 or net fd00:244::/56"

// capture is a running tcpdump on the wire between the nodes.
type capture struct {
	cmd    *exec.Cmd
	stderr bytes.Buffer
	file   string
}

// listen captures what the filter matches into a file.
func listen(file, filter string) (*capture, error) {
	c := &capture{file: file}
	c.cmd = exec.Command(filepath.Join(root(), "test/lab/lab"), "wire", "-n", "-U", "--immediate-mode", "-B", "16384", "-w", file, filter)
	c.cmd.Stderr = &c.stderr
	c.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := c.cmd.Start(); err != nil {
		return nil, fmt.Errorf("capture the wire: %w", err)
	}
	return c, nil
}

var droppedByKernel = regexp.MustCompile(`(\d+) packets dropped by kernel`)

// stop ends the capture and gives what it saw, in tcpdump's words. A capture
// that lost packets proves nothing, and is an error.
func (c *capture) stop() (string, error) {
	if err := syscall.Kill(-c.cmd.Process.Pid, syscall.SIGINT); err != nil {
		return "", fmt.Errorf("end capture: %w", err)
	}
	if err := c.cmd.Wait(); err != nil {
		return "", fmt.Errorf("capture: %w\n%s", err, c.stderr.String())
	}
	m := droppedByKernel.FindStringSubmatch(c.stderr.String())
	if m == nil {
		return "", fmt.Errorf("capture says nothing of lost packets:\n%s", c.stderr.String())
	}
	if n, err := strconv.Atoi(m[1]); err != nil || n > 0 {
		return "", fmt.Errorf("capture lost %s packets", m[1])
	}
	out, err := exec.Command("tcpdump", "-n", "-r", c.file).Output()
	if err != nil {
		return "", fmt.Errorf("read capture: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}

// contains says whether the captured packets hold the text in the clear.
func (c *capture) contains(text string) (bool, error) {
	data, err := os.ReadFile(c.file)
	if err != nil {
		return false, fmt.Errorf("read capture: %w", err)
	}
	return bytes.Contains(data, []byte(text)), nil
}
