// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"fmt"
	"log/slog"
	"os"
	"path/filepath"

	"github.com/sealane/sealane/internal/atomicfile"
)

// plugins are the CNI binaries that every node gets: ours, and those that the
// network configuration chains.
func plugins() []string { return []string{"sealane-cni", "portmap", "loopback"} }

// Install places the CNI plugins of the image in the runtime's folder, each
// whole or not at all: a pod may be starting at this moment.
func Install(from, binDir string, log *slog.Logger) error {
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return fmt.Errorf("make plugin folder: %w", err)
	}
	for _, name := range plugins() {
		data, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			return fmt.Errorf("read plugin: %w", err)
		}
		to := filepath.Join(binDir, name)
		if err := atomicfile.Write(to, data, 0o755); err != nil {
			return fmt.Errorf("install plugin: %w", err)
		}
		log.Info("plugin installed", "path", to, "bytes", len(data))
	}
	return nil
}
