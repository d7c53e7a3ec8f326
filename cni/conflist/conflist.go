// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package conflist writes the network configuration list, by which a container runtime
// finds the plugin (CNI specification 1.1, section 1).
package conflist

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/internal/atomicfile"
)

const (
	// Network is the name of the network that the list defines.
	Network = "sealane"
	// DefaultPath is where the runtime finds the network. The number puts it before
	// the networks of others.
	DefaultPath = "/etc/cni/net.d/05-sealane.conflist"
)

// Options are the choices of the list. The zero value is what a cluster needs.
type Options struct {
	// Socket and QueueDir are written if they are not the plugin's defaults.
	Socket, QueueDir string
}

// list is the form of the file.
type list struct {
	CNIVersion string       `json:"cniVersion"`
	Name       string       `json:"name"`
	Plugins    []pluginConf `json:"plugins"`
}

type pluginConf struct {
	Type         string          `json:"type"`
	Capabilities map[string]bool `json:"capabilities"`
	Socket       string          `json:"socket,omitempty"`
	QueueDir     string          `json:"delQueueDir,omitempty"`
	Portmap      map[string]any  `json:"portmap"`
}

// Encode returns the list for the runtime: the plugin, which is told of hostPorts, and
// what it tells the portmap plugin then. Source translation is on, so that a pod
// reaches itself through its own hostPort, and the host by 127.0.0.1.
func Encode(o Options) []byte {
	own := pluginConf{
		Type: cni.PluginType, Capabilities: map[string]bool{"portMappings": true}, Portmap: map[string]any{"snat": true},
	}
	if o.Socket != cni.DefaultSocket {
		own.Socket = o.Socket
	}
	if o.QueueDir != cni.DefaultQueueDir {
		own.QueueDir = o.QueueDir
	}
	data, err := json.MarshalIndent(list{
		CNIVersion: "1.1.0",
		Name:       Network,
		Plugins:    []pluginConf{own},
	}, "", "  ")
	if err != nil {
		panic(err) // strings, bools and a map of them
	}
	return append(data, '\n')
}

// Write writes the list to path for the runtime to find, which from then on takes the
// node's network for ready. A file that says the same is not touched, as the runtime
// reads the directory anew at each change.
func Write(path string, o Options) error {
	data := Encode(o)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create directory of the CNI configuration: %w", err)
	}
	return atomicfile.Write(path, data, 0o644)
}
