// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"github.com/sealane/sealane/test/lab/internal/build"
	"github.com/sealane/sealane/test/lab/internal/cluster"
	"github.com/sealane/sealane/test/lab/internal/console"
	"github.com/sealane/sealane/test/lab/internal/image"
	"github.com/sealane/sealane/test/lab/internal/paths"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

var (
	errCommand = errors.New("unknown command")
	errUsage   = errors.New("usage")
	errRan     = errors.New("command failed") // it has said why itself
)

// env is what every command gets.
type env struct {
	paths   paths.Paths
	console *console.Console
}

func (e env) lab() (*cluster.Lab, error) { return cluster.Open(e.paths, e.console) }

type command struct {
	name, args, help string
	run              func(context.Context, env, []string) error
}

func commands() []command {
	return []command{
		{"build", "[TARGET…]", "build programs, and print where they are (default: what \"up\" needs): " + strings.Join(build.Names(), " "), buildTargets},
		{"images", "", "make the container images anew", makeImages},
		{"up", "[N] [--dual|--ipv6] [--proxy=nftables|iptables|none] [--cni=none|flannel] [--mtu=1500]", "start a cluster of N nodes (3)", up},
		{"down", "", "end it and remove all that it made, but logs", down},
		{"status", "", "daemons, nodes, pods", status},
		{"kubectl", "ARG…", "as the cluster's administrator", kubectl},
		{"kubeconfig", "", "print the path of the administrator's kubeconfig", kubeconfig},
		{"sh", "NODE [COMMAND…]", "run a command, or a shell, on a node", shell},
		{"wire", "[ARG…]", "tcpdump between the nodes", wire},
		{"pid", "NODE|wire", "print the process whose namespaces are the node's", pid},
		{"load", "FILE.tar…", "give container images to every node", load},
		{"start", "NODE DAEMON", "start a daemon: " + strings.Join(plan.Daemons(), " "), start},
		{"stop", "NODE DAEMON", "end a daemon", stop},
		{"add-node", "NAME", "a new node joins the cluster", addNode},
		{"remove-node", "NAME", "a node fails and is taken out of the cluster", removeNode},
		{"e2e", "FOCUS [GINKGO-FLAG…]", "run those of upstream's tests whose name matches FOCUS", e2e},
	}
}

func usage() string {
	var text strings.Builder
	text.WriteString("A Kubernetes cluster on this machine, a set of namespaces per node.\n\n")
	for _, c := range commands() {
		fmt.Fprintf(&text, "  lab %s %s\n        %s\n", c.name, c.args, c.help)
	}
	fmt.Fprintf(&text, "\n%s: where built programs and images are kept (~/.cache/sealane)\n%s: where clusters live, on a real disk (/var/lib/sealane-lab)\n%s: name of the lab (sealane); labs of different names do not meet\n",
		paths.EnvCache, paths.EnvState, paths.EnvName)
	return text.String()
}

func buildTargets(ctx context.Context, e env, names []string) error {
	if len(names) == 0 {
		names = []string{"kubernetes", "containerd", "runc", "plugins", "etcd", "agnhost", "coredns"}
	}
	targets, err := build.Find(names...)
	if err != nil {
		return err
	}
	builder := build.New(e.paths, e.console)
	if err := builder.Ensure(ctx, targets); err != nil {
		return err
	}
	for _, t := range targets {
		fmt.Println(builder.Dir(t))
	}
	return nil
}

func makeImages(ctx context.Context, e env, args []string) error {
	if err := count(args, 0, "images"); err != nil {
		return err
	}
	set := image.Set{Dir: e.paths.Images(), Builder: build.New(e.paths, e.console), Console: e.console}
	file, err := set.Path()
	if err != nil {
		return err
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	_, err = set.Ensure(ctx)
	return err
}

func up(ctx context.Context, e env, args []string) error {
	o, err := parseUp(args)
	if err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	return lab.Up(ctx, o)
}

// parseUp reads the arguments of "up": flags may stand before and after the number of nodes.
func parseUp(args []string) (plan.Options, error) {
	o := plan.Options{Nodes: 3, Families: plan.IPv4}
	flags := flag.NewFlagSet("up", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	family := func(f plan.Families) func(string) error {
		return func(string) error { o.Families = f; return nil }
	}
	flags.BoolFunc("dual", "IPv4 and IPv6", family(plan.Dual))
	flags.BoolFunc("ipv6", "IPv6 alone", family(plan.IPv6))
	flags.StringVar(&o.Proxy, "proxy", "nftables", "")
	flags.StringVar(&o.CNI, "cni", "none", "")
	flags.IntVar(&o.MTU, "mtu", 1500, "")
	var numbers []string
	for rest := args; ; {
		if err := flags.Parse(rest); err != nil {
			return o, fmt.Errorf("%w: up: %w", errUsage, err)
		}
		if flags.NArg() == 0 {
			break
		}
		numbers, rest = append(numbers, flags.Arg(0)), flags.Args()[1:]
	}
	if len(numbers) > 1 {
		return o, fmt.Errorf("%w: up: too many arguments: %q", errUsage, numbers)
	}
	if len(numbers) == 1 {
		n, err := strconv.Atoi(numbers[0])
		if err != nil {
			return o, fmt.Errorf("%w: up: %q is not a number of nodes", errUsage, numbers[0])
		}
		o.Nodes = n
	}
	return o, o.Validate()
}

func down(ctx context.Context, e env, args []string) error {
	if err := count(args, 0, "down"); err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	return lab.Down(ctx)
}

func status(ctx context.Context, e env, args []string) error {
	if err := count(args, 0, "status"); err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	return lab.Status(ctx, os.Stdout)
}

func kubectl(ctx context.Context, e env, args []string) error {
	lab, err := e.lab()
	if err != nil {
		return err
	}
	cmd, err := lab.Kubectl(ctx, args...)
	if err != nil {
		return err
	}
	return attach(cmd)
}

func kubeconfig(_ context.Context, e env, args []string) error {
	if err := count(args, 0, "kubeconfig"); err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	fmt.Println(lab.Kubeconfig())
	return nil
}

func shell(ctx context.Context, e env, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: sh NODE [COMMAND…]", errUsage)
	}
	argv := args[1:]
	if len(argv) == 0 {
		argv = []string{"bash"}
	}
	return on(ctx, e, args[0], argv)
}

func wire(ctx context.Context, e env, args []string) error {
	return on(ctx, e, plan.WireName, append([]string{"tcpdump", "-Z", "root", "-i", plan.Bridge}, args...)) // as root, or -w could not write
}

func on(ctx context.Context, e env, name string, argv []string) error {
	lab, err := e.lab()
	if err != nil {
		return err
	}
	m, err := lab.Machine(name)
	if err != nil {
		return err
	}
	return attach(m.Command(ctx, argv...))
}

func pid(_ context.Context, e env, args []string) error {
	if err := count(args, 1, "pid NODE|wire"); err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	m, err := lab.Machine(args[0])
	if err != nil {
		return err
	}
	fmt.Println(m.PID)
	return nil
}

func load(ctx context.Context, e env, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: load FILE.tar…", errUsage)
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	for _, file := range args {
		if err := e.console.Step(ctx, "load "+file, func(ctx context.Context) error { return lab.Load(ctx, file) }); err != nil {
			return err
		}
	}
	return nil
}

func start(ctx context.Context, e env, args []string) error {
	if err := count(args, 2, "start NODE DAEMON"); err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	return lab.Start(ctx, args[0], args[1])
}

func stop(ctx context.Context, e env, args []string) error {
	if err := count(args, 2, "stop NODE DAEMON"); err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	return lab.Stop(ctx, args[0], args[1])
}

func addNode(ctx context.Context, e env, args []string) error {
	if err := count(args, 1, "add-node NAME"); err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	return lab.AddNode(ctx, args[0])
}

func removeNode(ctx context.Context, e env, args []string) error {
	if err := count(args, 1, "remove-node NAME"); err != nil {
		return err
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	return lab.RemoveNode(ctx, args[0])
}

func e2e(ctx context.Context, e env, args []string) error {
	if len(args) == 0 {
		return fmt.Errorf("%w: e2e FOCUS [GINKGO-FLAG…]", errUsage)
	}
	lab, err := e.lab()
	if err != nil {
		return err
	}
	cmd, err := lab.E2E(ctx, args[0], args[1:])
	if err != nil {
		return err
	}
	return attach(cmd)
}

func count(args []string, want int, usage string) error {
	if len(args) != want {
		return fmt.Errorf("%w: %s", errUsage, usage)
	}
	return nil
}
