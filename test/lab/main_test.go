// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/test/lab/internal/plan"
)

func TestParseUp(t *testing.T) {
	usual := plan.Options{Nodes: 3, Families: plan.IPv4, Proxy: "nftables", CNI: "none", MTU: 1500}
	tests := map[string]struct {
		args   string
		change func(*plan.Options)
	}{
		"nothing":          {"", func(*plan.Options) {}},
		"number":           {"5", func(o *plan.Options) { o.Nodes = 5 }},
		"number and flags": {"2 --dual --cni=flannel", func(o *plan.Options) { o.Nodes, o.Families, o.CNI = 2, plan.Dual, "flannel" }},
		"flags and number": {"--ipv6 --proxy iptables 1", func(o *plan.Options) { o.Nodes, o.Families, o.Proxy = 1, plan.IPv6, "iptables" }},
		"number between":   {"--mtu=9000 4 --proxy=none", func(o *plan.Options) { o.Nodes, o.MTU, o.Proxy = 4, 9000, "none" }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want := usual
			tt.change(&want)
			got, err := parseUp(strings.Fields(tt.args))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestParseUpRefuses(t *testing.T) {
	for args, want := range map[string]error{
		"three": errUsage, "1 2": errUsage, "--bogus": errUsage, "--mtu=big": errUsage,
		"0": plan.ErrOption, "6": plan.ErrOption, "--proxy=ipvs": plan.ErrOption, "--cni=cilium": plan.ErrOption, "--mtu=100": plan.ErrOption,
	} {
		if _, err := parseUp(strings.Fields(args)); !errors.Is(err, want) {
			t.Errorf("up %s: got %v, want %v", args, err, want)
		}
	}
}

func TestCommandsRefuseWrongArguments(t *testing.T) {
	for _, line := range []string{"down now", "status x", "images x", "kubeconfig x", "sh", "pid", "pid a b", "load", "start n1", "stop n1", "add-node", "remove-node a b", "e2e"} {
		if err := run(strings.Fields(line)); !errors.Is(err, errUsage) {
			t.Errorf("lab %s: got %v, want %v", line, err, errUsage)
		}
	}
	if err := run([]string{"bogus"}); !errors.Is(err, errCommand) {
		t.Errorf("got %v, want %v", err, errCommand)
	}
}

func TestUsageNamesEveryCommand(t *testing.T) {
	text := usage()
	for _, c := range commands() {
		if !strings.Contains(text, "lab "+c.name+" ") || c.help == "" {
			t.Errorf("%s is not explained", c.name)
		}
	}
}

// "lab sh" and "lab kubectl" end as the command did.
func TestExitCode(t *testing.T) {
	ended := exec.Command("sh", "-c", "exit 7").Run()
	for want, err := range map[int]error{0: nil, 1: fmt.Errorf("inside: %w", ended), 7: fmt.Errorf("%w: %w", errRan, ended)} {
		if got := exitCode(err); got != want {
			t.Errorf("%v: got %d, want %d", err, got, want)
		}
	}
}
