// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/sealane/sealane/perf/netnsexec"
)

// Where a node keeps what a container runtime uses.
const (
	confDir = "/etc/cni/net.d"
	binDir  = "/opt/cni/bin"
)

// cniTimes is how long the plugins of a node took.
type cniTimes struct{ Add, Del quantiles }

func (t cniTimes) cells(id string) map[string]float64 {
	return map[string]float64{
		id + "/add50": milliseconds(t.Add.P50), id + "/add99": milliseconds(t.Add.P99),
		id + "/del50": milliseconds(t.Del.P50), id + "/del99": milliseconds(t.Del.P99),
	}
}

// network is a CNI network configuration list.
type network struct {
	CNIVersion string           `json:"cniVersion"`
	Name       string           `json:"name"`
	Plugins    []map[string]any `json:"plugins"`
}

// findNetwork reads the list that a runtime would use: the first by name.
func findNetwork(dir string) (network, error) {
	var n network
	files, err := filepath.Glob(filepath.Join(dir, "*.conflist")) // sorted
	if err != nil {
		return n, err
	}
	if len(files) == 0 {
		return n, fmt.Errorf("%w: %s has no *.conflist", ErrConflist, dir)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		return n, err
	}
	if err := json.Unmarshal(text, &n); err != nil {
		return n, fmt.Errorf("%w: %s: %w", ErrConflist, files[0], err)
	}
	if len(n.Plugins) == 0 {
		return n, fmt.Errorf("%w: %s has no plugins", ErrConflist, files[0])
	}
	return n, nil
}

// config returns what the i-th plugin gets on its standard input.
func (n network) config(i int, prev json.RawMessage) ([]byte, error) {
	conf := maps.Clone(n.Plugins[i])
	conf["cniVersion"], conf["name"] = n.CNIVersion, n.Name
	if prev != nil {
		conf["prevResult"] = prev
	}
	if caps, ok := conf["capabilities"].(map[string]any); ok {
		delete(conf, "capabilities")
		runtime := map[string]any{}
		if caps["portMappings"] == true {
			runtime["portMappings"] = []any{} // as containerd does for a pod without hostPort
		}
		conf["runtimeConfig"] = runtime
	}
	return json.Marshal(conf)
}

// identity is how the API server knows a pod.
type identity struct{ name, uid string }

// readIdentities reads a name and a UID from each line.
func readIdentities(in io.Reader) (all []identity, err error) {
	for lines := bufio.NewScanner(in); ; {
		if !lines.Scan() {
			if err := lines.Err(); err != nil || len(all) > 0 {
				return all, err
			}
			return nil, fmt.Errorf("%w: cni wants pods on its standard input, a name and a UID per line", ErrUsage)
		}
		words := strings.Fields(lines.Text())
		if len(words) != 2 {
			return nil, fmt.Errorf("%w: pod %q: want a name and a UID", ErrUsage, lines.Text())
		}
		all = append(all, identity{words[0], words[1]})
	}
}

// pod is a network namespace that stands for a pod.
type pod struct {
	identity
	id     string // of the container
	netns  netnsexec.Netns
	result json.RawMessage
}

// call runs one plugin and returns what it printed.
func (n network) call(ctx context.Context, i int, cmd string, p *pod) ([]byte, error) {
	kind, _ := n.Plugins[i]["type"].(string)
	conf, err := n.config(i, p.result)
	if err != nil {
		return nil, err
	}
	c := netnsexec.Command(ctx, filepath.Join(binDir, filepath.Base(kind)))
	c.Stdin = bytes.NewReader(conf)
	c.Env = append(os.Environ(), // portmap looks for iptables in PATH
		"CNI_COMMAND="+cmd, "CNI_CONTAINERID="+p.id, "CNI_NETNS="+string(p.netns), "CNI_IFNAME=eth0", "CNI_PATH="+binDir,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_INFRA_CONTAINER_ID="+p.id+";K8S_POD_NAME="+p.name+";K8S_POD_UID="+p.uid,
	)
	return netnsexec.Output(c)
}

// add runs the plugins in their order, as a runtime does for a new pod.
func (n network) add(ctx context.Context, p *pod) error {
	for i := range n.Plugins {
		out, err := n.call(ctx, i, "ADD", p)
		if err != nil {
			return err
		}
		p.result = out
	}
	return nil
}

// del runs the plugins in reverse order.
func (n network) del(ctx context.Context, p *pod) error {
	for i := len(n.Plugins) - 1; i >= 0; i-- {
		if _, err := n.call(ctx, i, "DEL", p); err != nil {
			return err
		}
	}
	return nil
}

// timePods adds pods through the plugins of the node that it runs on, so many at
// a time, then deletes them. Only the plugins' time counts.
func timePods(ctx context.Context, all []identity, parallel int) (t cniTimes, err error) {
	n, err := findNetwork(confDir)
	if err != nil {
		return t, err
	}
	pods := make([]pod, len(all))
	defer func() {
		for i := range pods {
			err = errors.Join(err, pods[i].netns.Remove())
		}
	}()
	for i := range pods {
		id := fmt.Sprintf("slperf-%d-%d", os.Getpid(), i)
		if pods[i].netns, err = netnsexec.Make(id); err != nil {
			return t, err
		}
		pods[i].id, pods[i].identity = id, all[i]
	}
	added, addErr := timeEach(ctx, pods, parallel, n.add)
	// Also after an error, and then with a context of its own, as far as it goes.
	deleted, delErr := timeEach(context.WithoutCancel(ctx), pods, parallel, n.del)
	t = cniTimes{Add: quantilesOf(added), Del: quantilesOf(deleted)}
	return t, errors.Join(addErr, delErr)
}

// timeEach does something to each pod, some at a time, and returns how long each took.
func timeEach(ctx context.Context, pods []pod, parallel int, do func(context.Context, *pod) error) ([]time.Duration, error) {
	took := make([]time.Duration, len(pods))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(parallel)
	for i := range pods {
		group.Go(func() error {
			start := time.Now()
			err := do(ctx, &pods[i])
			took[i] = time.Since(start)
			return err
		})
	}
	return took, group.Wait()
}
