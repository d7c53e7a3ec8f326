// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"github.com/sealane/sealane/internal/atomicfile"
)

const (
	// NetworkName is the name of the network that the conflist defines.
	NetworkName = "sealane"
	// PluginType is the type of the plugin in the conflist, and so the name of
	// its binary.
	PluginType = "sealane-cni"
	// DefaultConflist is where the runtime finds the network. The number puts it
	// before the networks of others.
	DefaultConflist = "/etc/cni/net.d/05-sealane.conflist"
)

// ConflistOptions are the choices of the network configuration list. The zero value
// is what a cluster needs.
type ConflistOptions struct {
	// Socket and QueueDir are written if they are not the plugin's defaults.
	Socket, QueueDir string
	// PortMapBackend is how the portmap plugin, which serves hostPorts, works:
	// "iptables", "nftables", or empty for its own choice.
	PortMapBackend string
}

// conflist is the form of the file (CNI specification 1.1, section 1).
type conflist struct {
	CNIVersion string       `json:"cniVersion"`
	Name       string       `json:"name"`
	Plugins    []pluginConf `json:"plugins"`
}

type pluginConf struct {
	Type         string          `json:"type"`
	Socket       string          `json:"socket,omitempty"`
	QueueDir     string          `json:"delQueueDir,omitempty"`
	Capabilities map[string]bool `json:"capabilities,omitempty"`
	SNAT         bool            `json:"snat,omitempty"`
	Backend      string          `json:"backend,omitempty"`
}

// Conflist returns the network configuration list for the runtime: the plugin, and
// the portmap plugin chained behind it for hostPorts. Source translation is on, so
// that a pod reaches itself through its own hostPort, and the host by 127.0.0.1.
func Conflist(o ConflistOptions) []byte {
	own := pluginConf{Type: PluginType}
	if o.Socket != DefaultSocket {
		own.Socket = o.Socket
	}
	if o.QueueDir != DefaultQueueDir {
		own.QueueDir = o.QueueDir
	}
	portmap := pluginConf{
		Type:         "portmap",
		Capabilities: map[string]bool{"portMappings": true},
		SNAT:         true,
		Backend:      o.PortMapBackend,
	}
	data, err := json.MarshalIndent(conflist{
		CNIVersion: "1.1.0",
		Name:       NetworkName,
		Plugins:    []pluginConf{own, portmap},
	}, "", "  ")
	if err != nil {
		panic(err) // strings, bools and a map of them
	}
	return append(data, '\n')
}

// WriteConflist writes the list to path for the runtime to find, which from then on
// takes the node's network for ready. A file that says the same is not touched, as
// the runtime reads the directory anew at each change.
func WriteConflist(path string, o ConflistOptions) error {
	data := Conflist(o)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("create directory of the CNI configuration: %w", err)
	}
	return atomicfile.Write(path, data, 0o644)
}

// RemoveConflist takes the list away; none is no error.
func RemoveConflist(path string) error { return atomicfile.Remove(path) }
