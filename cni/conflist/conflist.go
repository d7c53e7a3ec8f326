// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package conflist writes the network configuration list, through which a container runtime
// finds the plugin (CNI specification 1.1, section 1).
package conflist

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"time"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/internal/atomicfile"
)

const (
	// Network is the name of the network that the list defines.
	Network = "sealane"
	// DefaultPath is where the runtime looks for the network. The number sorts it before
	// other networks.
	DefaultPath = "/etc/cni/net.d/05-sealane.conflist"
	// keepPeriod is the interval at which Keep checks the list.
	keepPeriod = 10 * time.Second
)

// Options are the choices of the list. The zero value suits a cluster.
type Options struct {
	// Socket and QueueDir are written only if they differ from the plugin's defaults.
	Socket, QueueDir string
	// Reserved are ports that no pod may have as hostPort, written like 51871/udp.
	Reserved []string
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
	Reserved     []string        `json:"reservedHostPorts,omitempty"`
}

// Encode returns the list for the runtime: the plugin, to which the runtime passes
// hostPorts, and the settings that it hands to the portmap plugin. Source translation is
// on, so that a pod reaches itself through its own hostPort, and the host reaches it
// through 127.0.0.1.
func Encode(o Options) []byte {
	own := pluginConf{
		Type: cni.PluginType, Capabilities: map[string]bool{"portMappings": true}, Portmap: map[string]any{"snat": true},
		Reserved: o.Reserved,
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

// Write writes the list to path, where the runtime finds it; from then on the runtime
// considers the node's network ready. A file with the same content stays untouched, because
// the runtime reads the directory again at each change.
func Write(path string, o Options) error {
	_, err := write(path, o)
	return err
}

// write reports whether it had to change the file.
func write(path string, o Options) (touched bool, err error) {
	data := Encode(o)
	if old, err := os.ReadFile(path); err == nil && bytes.Equal(old, data) {
		return false, nil
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return false, fmt.Errorf("create directory of the CNI configuration: %w", err)
	}
	return true, atomicfile.Write(path, data, 0o644)
}

// Keep writes the list again, until ctx ends, whenever somebody has changed or removed it:
// an operator who followed instructions, or the uninstaller of another network. Without
// Keep the runtime would connect no pod until the daemon starts again. Errors are only
// logged, because connected pods need no list.
func Keep(ctx context.Context, path string, o Options, log *slog.Logger) {
	tick := time.NewTicker(keepPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		if touched, err := write(path, o); err != nil {
			log.Error("cannot write the network configuration again", "path", path, "error", err)
		} else if touched {
			log.Warn("network configuration was changed or removed; it has been written again", "path", path)
		}
	}
}
