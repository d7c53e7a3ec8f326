// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/containernetworking/cni/pkg/utils"
)

// remedyEnv is the remedy when the runtime has passed something impossible.
const remedyEnv = "see how the runtime sets the CNI environment; this is not the network's fault"

// attachment reads the attachment of an ADD, CHECK or DEL. Of a DEL only the name must be
// valid.
func (r Request) attachment() (Attachment, error) {
	if err := r.id().validate(); err != nil {
		return Attachment{}, err
	}
	a := Attachment{ContainerID: r.ContainerID, IfName: r.IfName, Netns: r.Netns}
	if r.Command == CommandDel {
		cfg := salvageConfig(r.Config)
		a.Network, a.Prev = cfg.Name, cfg.Prev
		a.Pod, _ = ParseArgs(r.Args)
		return a, nil
	}
	if !filepath.IsAbs(r.Netns) {
		return Attachment{}, invalid(types.ErrInvalidEnvironmentVariables,
			fmt.Errorf("CNI_NETNS is %q: it must be an absolute path", r.Netns), remedyEnv)
	}
	cfg, err := ParseConfig(r.Config)
	if err != nil {
		return Attachment{}, err
	}
	a.Network, a.Prev = cfg.Name, cfg.Prev
	a.Pod, err = ParseArgs(r.Args)
	return a, err
}

// validAttachments reads from a GC the network and the attachments of it to keep.
func (r Request) validAttachments() (network string, valid []AttachmentID, err error) {
	cfg, err := ParseConfig(r.Config)
	if err != nil {
		return "", nil, err
	}
	if !cfg.ValidKnown {
		return "", nil, invalid(types.ErrInvalidNetworkConfig,
			fmt.Errorf("%s is missing: nothing was collected, because without it all pods would lose their network", keyAttachments),
			"use a runtime that passes it (CNI specification 1.1, section GC)")
	}
	return cfg.Name, cfg.Valid, nil
}

func (r Request) id() AttachmentID {
	return AttachmentID{ContainerID: r.ContainerID, IfName: r.IfName}
}

// validate checks the names against the limits of the specification.
func (id AttachmentID) validate() error {
	if err := utils.ValidateContainerID(id.ContainerID); err != nil {
		return invalid(types.ErrInvalidEnvironmentVariables,
			fmt.Errorf("CNI_CONTAINERID is %q: %w", id.ContainerID, errors.New(err.Msg)), remedyEnv)
	}
	if err := utils.ValidateInterfaceName(id.IfName); err != nil {
		return invalid(types.ErrInvalidEnvironmentVariables,
			fmt.Errorf("CNI_IFNAME is %q: %w", id.IfName, errors.New(err.Msg)), remedyEnv)
	}
	return nil
}
