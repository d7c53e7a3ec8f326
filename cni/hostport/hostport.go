// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package hostport passes the hostPorts of a pod to the portmap plugin, which translates
// addresses for them.
//
// It delegates (CNI specification 1.1, section 4) instead of letting the runtime chain that
// plugin. A runtime starts each plugin of the chain for each pod, and portmap looks for
// iptables before it checks whether the pod has a hostPort at all. That took half the time
// of an ADD, and few pods have hostPorts.
package hostport

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/containernetworking/cni/pkg/types"
)

// Plugin is the type of the plugin, and therefore the name of its binary. It is portmap,
// of the version that we ship; a node may have another one under the usual name.
const Plugin = "sealane-portmap"

// timeout bounds the plugin's run time: many times what iptables takes on a node with
// thousands of rules, and well below the time after which runtimes give up.
const timeout = time.Minute

// ErrPlugin means that the plugin is not where the runtime keeps plugins (CNI_PATH).
var ErrPlugin = errors.New("a hostPort needs the plugin " + Plugin)

// Call is the input of the plugin for one pod.
type Call struct {
	// Path lists the directories in which the runtime keeps plugins (CNI_PATH).
	Path string
	// CNIVersion and Network are those of the network configuration.
	CNIVersion, Network string
	// Settings are fields of the plugin's configuration.
	Settings map[string]json.RawMessage
	// Mappings are the pod's hostPorts, in the form of the runtime: the list
	// runtimeConfig.portMappings.
	Mappings []json.RawMessage
	// Prev is the result of the pod's ADD; nil if unknown (DEL).
	Prev types.Result
}

// Do makes the plugin carry out a command: ADD, CHECK or DEL. It does not start the plugin
// for a pod without Mappings. The plugin inherits the environment, which names the pod, and
// finds the pod's addresses in Prev, which is also its result of an ADD. After a failed ADD
// some ports may be mapped. An error that the plugin reports is a types.Error.
func (c Call) Do(ctx context.Context, command string) error {
	if len(c.Mappings) == 0 {
		return nil
	}
	conf, err := c.config()
	if err != nil {
		return err
	}
	path, err := find(c.Path)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, timeout)
	defer cancel()
	plugin := exec.CommandContext(ctx, path)
	plugin.WaitDelay = time.Second                            // for its child processes, which may hold its output open
	plugin.Env = append(os.Environ(), "CNI_COMMAND="+command) // the last value of a variable counts
	plugin.Stdin, plugin.Stderr = bytes.NewReader(conf), os.Stderr
	out, err := plugin.Output()
	if err == nil {
		return nil
	}
	var told types.Error
	if ctx.Err() != nil {
		err = fmt.Errorf("it was still running: %w", ctx.Err())
	} else if json.Unmarshal(out, &told) == nil && told.Msg != "" {
		err = &told
	}
	return fmt.Errorf("%s of hostPorts by %s: %w", command, path, err)
}

// ErrReserved means that a hostPort belongs to the node's own network.
var ErrReserved = errors.New("port of the node's network")

// Check refuses mappings of reserved ports, each written like 51871/udp: their packets
// would reach the pod instead.
func Check(mappings []json.RawMessage, reserved []string) error {
	for _, raw := range mappings {
		var m struct {
			HostPort int
			Protocol string
		}
		if err := json.Unmarshal(raw, &m); err != nil {
			return fmt.Errorf("portMappings has %s: %w", raw, err)
		}
		if m.Protocol == "" {
			m.Protocol = "tcp"
		}
		if port := fmt.Sprintf("%d/%s", m.HostPort, strings.ToLower(m.Protocol)); slices.Contains(reserved, port) {
			return fmt.Errorf("%w: hostPort %s: Sealane uses it for lanes, pairing or its probes; choose another hostPort", ErrReserved, port)
		}
	}
	return nil
}

// find returns the plugin's path in a list of directories.
func find(list string) (string, error) {
	for _, dir := range filepath.SplitList(list) {
		if path := filepath.Join(dir, Plugin); filepath.IsAbs(path) {
			if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
				return path, nil
			}
		}
	}
	return "", fmt.Errorf("%w, and CNI_PATH (%q) has none: restart the node's sealane-agent pod, which installs it", ErrPlugin, list)
}

// config returns the configuration that a runtime would pass to the plugin in a chain.
func (c Call) config() ([]byte, error) {
	conf := map[string]any{}
	for key, value := range c.Settings {
		conf[key] = value
	}
	conf["cniVersion"], conf["name"], conf["type"] = c.CNIVersion, c.Network, Plugin
	conf["runtimeConfig"] = map[string]any{"portMappings": c.Mappings}
	if c.Prev != nil {
		conf["prevResult"] = c.Prev
	}
	data, err := json.Marshal(conf)
	if err != nil {
		return nil, fmt.Errorf("encode configuration of %s: %w", Plugin, err)
	}
	return data, nil
}
