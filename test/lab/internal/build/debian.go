// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package build

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"github.com/sealane/sealane/test/lab/internal/console"
)

// Tool is something of the machine that the lab uses: a program, or a file that a compiler reads.
type Tool struct {
	Name    string
	Package string // of Debian
	File    string // pattern of a file that shows that it is there; "" looks for a program of the name
}

// Tools that a node or the lab itself runs.
var running = []string{"ip", "nsenter", "setsid", "nft", "iptables", "conntrack", "tcpdump"}

// Tools that are copied into the images for tests.
var copied = []string{"busybox", "bash", "curl", "wget", "nc", "dig", "getent", "ip", "ss", "iperf3", "conntrack", "gcc", "libc.h", "ldd"}

// RunTools lists what "up" needs, ImageTools what the images are made from.
func RunTools() []string { return slices.Clone(running) }

// ImageTools lists what the images are made from.
func ImageTools() []string { return slices.Clone(copied) }

func tools() []Tool {
	return []Tool{
		{Name: "bash", Package: "bash"},
		{Name: "busybox", Package: "busybox-static"},
		{Name: "conntrack", Package: "conntrack"},
		{Name: "curl", Package: "curl"},
		{Name: "dig", Package: "bind9-dnsutils"},
		{Name: "gcc", Package: "gcc"},
		{Name: "getent", Package: "libc-bin"},
		{Name: "ip", Package: "iproute2"},
		{Name: "iperf3", Package: "iperf3"},
		{Name: "iptables", Package: "iptables"},
		{Name: "ldd", Package: "libc-bin"},
		{Name: "libc.h", Package: "libc6-dev", File: "/usr/include/stdio.h"},
		{Name: "nc", Package: "netcat-openbsd", File: "/bin/nc.openbsd"},
		{Name: "nft", Package: "nftables"},
		{Name: "nsenter", Package: "util-linux"},
		{Name: "pkg-config", Package: "pkg-config"},
		{Name: "seccomp.h", Package: "libseccomp-dev", File: "/usr/include/seccomp.h"},
		{Name: "setsid", Package: "util-linux"},
		{Name: "ss", Package: "iproute2"},
		{Name: "tcpdump", Package: "tcpdump"},
		{Name: "wget", Package: "wget"},
	}
}

// packagesFor lists the Debian packages of those names that there does not find, sorted, each once.
func packagesFor(names []string, there func(Tool) bool) ([]string, error) {
	var packages []string
	for _, name := range names {
		i := slices.IndexFunc(tools(), func(t Tool) bool { return t.Name == name })
		if i < 0 {
			return nil, fmt.Errorf("%w: no package known for %q", ErrMissing, name)
		}
		if t := tools()[i]; !there(t) {
			packages = append(packages, t.Package)
		}
	}
	slices.Sort(packages)
	return slices.Compact(packages), nil
}

func onMachine(t Tool) bool {
	if t.File != "" {
		found, _ := filepath.Glob(t.File)
		return len(found) > 0
	}
	_, err := exec.LookPath(t.Name)
	return err == nil
}

// EnsureTools installs what is not there of the named tools.
func EnsureTools(ctx context.Context, c *console.Console, names []string) error {
	packages, err := packagesFor(names, onMachine)
	if err != nil || len(packages) == 0 {
		return err
	}
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("%w: install what Debian calls %s", ErrMissing, list)
	}
	return c.Step(ctx, "install "+list, func(ctx context.Context) error {
		if apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, packages...)) == nil {
			return nil
		}
		if err := apt(ctx, []string{"update"}); err != nil { // the lists may be old, or never fetched
			return err
		}
		return apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, packages...))
	})
}

func apt(ctx context.Context, args []string) error {
	cmd := exec.CommandContext(ctx, "apt-get", append([]string{"-q"}, args...)...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("apt-get %s: %w: %s", args[0], err, strings.TrimSpace(string(out)))
	}
	return nil
}
