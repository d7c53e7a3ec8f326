// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/podnet"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/hostnet"
	"github.com/sealane/sealane/overlay/vxlan"
	"github.com/sealane/sealane/overlay/wireguard"
)

// Clean removes every trace of Sealane from this node: configuration first, so
// that no pod is connected any more, then devices, routes, rules, programs, keys
// and files. It needs no state and may be repeated. Pods lose their network.
func Clean(ctx context.Context, cfg Config, binDir string, log *slog.Logger) error {
	links, err := nl.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	host, err := hostnet.New(links, log)
	if err != nil {
		return err
	}
	lanes, err := wireguard.New(wireguard.Options{Links: links, Socket: filepath.Join(cfg.RunDir, "wireguard.sock"), Logger: log})
	if err != nil {
		return err
	}
	errs := []error{
		os.RemoveAll(conflistPath(cfg)),
		removePlugins(binDir),
		host.Clean(ctx),
		lanes.Clean(),
		vxlan.New(links).Clean(),
		cleanDevices(links),
		bpf.Clean(cfg.BPFDir),
		emptyDir(cfg.StateDir),
		emptyDir(cfg.RunDir),
	}
	if err := errors.Join(errs...); err != nil {
		return fmt.Errorf("clean node: %w", err)
	}
	log.Info("node is clean")
	return nil
}

// removePlugins removes those that serve nobody else.
func removePlugins(binDir string) error {
	var errs []error
	for _, p := range plugins() {
		if !p.shared {
			errs = append(errs, os.RemoveAll(filepath.Join(binDir, p.name)))
		}
	}
	return errors.Join(errs...)
}

// cleanDevices removes the pods' devices, and the filters that kernels without
// tcx keep on devices that are not ours.
func cleanDevices(links *nl.Handle) error {
	all, err := links.Links()
	if err != nil {
		return err
	}
	var errs []error
	for _, l := range all {
		if l.Group == overlay.DeviceGroup || l.Group == podnet.DoomedGroup {
			errs = append(errs, links.DeleteLink(l.Name))
			continue
		}
		for _, dir := range []nl.Direction{nl.Ingress, nl.Egress} {
			errs = append(errs, links.DetachClsact(l.Index, dir))
		}
	}
	return errors.Join(errs...)
}

// emptyDir removes a folder, or what is in it where the folder itself is a
// mount of this container.
func emptyDir(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var errs []error
	for _, e := range entries {
		errs = append(errs, os.RemoveAll(filepath.Join(dir, e.Name())))
	}
	if err := os.Remove(dir); err != nil && !errors.Is(err, unix.EBUSY) {
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}
