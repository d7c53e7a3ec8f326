// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command sealane-cni is the CNI plugin of Sealane. It passes each request of the container
// runtime to the node daemon; package cni describes how.
package main

import (
	"os"
	"runtime/debug"

	"github.com/containernetworking/cni/pkg/skel"

	"github.com/sealane/sealane/cni"
)

func main() {
	plugin := cni.Plugin{Stdout: os.Stdout, Stderr: os.Stderr}
	skel.PluginMainFuncs(plugin.Funcs(), cni.Versions(), "CNI plugin sealane-cni "+version())
}

// version returns the version of the module that the binary was built from.
func version() string {
	if info, ok := debug.ReadBuildInfo(); ok {
		return info.Main.Version
	}
	return "(unknown)"
}
