// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/hostport"
	"github.com/sealane/sealane/internal/atomicfile"
)

// plugin is a CNI plugin of the image.
type plugin struct {
	file, name string // in the image, and in the runtime's folder
	// shared: the name belongs to the runtime or to others too. Such a plugin is
	// installed only where it is missing: a node may have it from its distribution.
	shared bool
}

// plugins are those that this version needs, in the order of their installation: a
// plugin comes after the one that it calls.
//
// The portmap plugin has a name of our own. One that a node has under the usual name may
// be of a version with known holes (CVE-2025-67499), and neither is there a way to ask:
// the command VERSION tells versions of the specification, not the plugin's. To
// replace it might break others that use it. Its DEL removes what another version has
// mapped, because the rules are found by the names of network and container.
//
// The runtime itself calls loopback, and we never do.
func plugins() []plugin {
	return []plugin{{"portmap", hostport.Plugin, false}, {"loopback", "loopback", true}, {cni.PluginType, cni.PluginType, false}}
}

// Install places the CNI plugins of the image in the runtime's folder, each
// whole or not at all: a pod may be starting at this moment.
func Install(from, binDir string, log *slog.Logger) error {
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return fmt.Errorf("make plugin folder: %w", err)
	}
	for _, p := range plugins() {
		to := filepath.Join(binDir, p.name)
		if _, err := os.Stat(to); p.shared && !errors.Is(err, fs.ErrNotExist) {
			continue
		}
		data, err := os.ReadFile(filepath.Join(from, p.file))
		if err != nil {
			return fmt.Errorf("read plugin: %w", err)
		}
		if err := atomicfile.Write(to, data, 0o755); err != nil {
			return fmt.Errorf("install plugin: %w", err)
		}
		log.Info("plugin installed", "path", to, "bytes", len(data))
	}
	return nil
}
