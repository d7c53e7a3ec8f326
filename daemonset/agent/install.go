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

	"github.com/sealane/sealane/internal/atomicfile"
)

// ownPlugin is ours, and replaced by each version.
const ownPlugin = "sealane-cni"

// otherPlugins are those of the CNI project that the runtime needs beside ours.
// They are installed only where they are missing: a node that has them may have
// them from its distribution, or for others.
func otherPlugins() []string { return []string{"portmap", "loopback"} }

// Install places the CNI plugins of the image in the runtime's folder, each
// whole or not at all: a pod may be starting at this moment.
func Install(from, binDir string, log *slog.Logger) error {
	if err := os.MkdirAll(binDir, 0o755); err != nil {
		return fmt.Errorf("make plugin folder: %w", err)
	}
	names := []string{ownPlugin}
	for _, name := range otherPlugins() {
		if _, err := os.Stat(filepath.Join(binDir, name)); errors.Is(err, fs.ErrNotExist) {
			names = append(names, name)
		}
	}
	for _, name := range names {
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
