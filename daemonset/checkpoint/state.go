// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package checkpoint

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/internal/canonical"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
)

const (
	// version is that of the file's format. The daemon ignores a file of another version
	// and waits for the API server, as it did before there was a file.
	version = 1
	maxSize = 16 << 20 // bytes; 5,000 nodes without a record are 1 MB
)

// State is the content of a checkpoint.
type State struct {
	Version int `json:"version"`
	// TrustDomain and Self identify the cluster and the node that the checkpoint is of.
	TrustDomain string          `json:"trustDomain"`
	Self        keymgr.LiveNode `json:"self"`
	// ClusterCIDRs are the pod ranges that the cluster was set up with; empty if they are
	// unknown or configured.
	ClusterCIDRs []netip.Prefix `json:"clusterCIDRs,omitempty"`
	// ServiceCIDRs are the ranges of Services, and APIServer the addresses of the API
	// server; empty if they are unknown.
	ServiceCIDRs []netip.Prefix `json:"serviceCIDRs,omitempty"`
	APIServer    []netip.Addr   `json:"apiServer,omitempty"`
	// Published is the hash of the statement of this node that its peers may know; nil if
	// it has published none.
	Published *keymgr.Hash `json:"published,omitempty"`
	// Others are the nodes that keymgr has no record of, or one that differs.
	Others []keymgr.LiveNode `json:"others,omitempty"`
}

// Parse reads a checkpoint, and refuses what Encode cannot have written.
func Parse(data []byte) (State, error) {
	if len(data) > maxSize {
		return State{}, fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, len(data), maxSize)
	}
	var p State
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&p); err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return State{}, fmt.Errorf("%w: data after the object", ErrFormat)
	}
	if err := p.validate(); err != nil {
		return State{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return p, nil
}

// Encode returns the content of the file.
func (p State) Encode() ([]byte, error) {
	p.Version = version
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("encode checkpoint: %w", err)
	}
	return json.Marshal(p)
}

func (p State) validate() error {
	if p.Version != version {
		return fmt.Errorf("version %d, want %d", p.Version, version)
	}
	if err := keymgr.ValidateTrustDomain(p.TrustDomain); err != nil {
		return err
	}
	if len(p.Self.PodCIDRs) == 0 || len(p.Self.Addresses) == 0 {
		return fmt.Errorf("node %s without pod ranges or addresses", p.Self.ID)
	}
	if err := checkPrefixes(slices.Concat(p.ClusterCIDRs, p.ServiceCIDRs)); err != nil {
		return err
	}
	for _, a := range p.APIServer {
		if !canonical.Address(a) {
			return fmt.Errorf("address %q of the API server", a)
		}
	}
	names, uids := map[string]bool{}, map[string]bool{}
	for _, n := range append([]keymgr.LiveNode{p.Self}, p.Others...) {
		if err := checkNode(n); err != nil {
			return err
		}
		if names[n.ID.Name] || uids[n.ID.UID] {
			return fmt.Errorf("node %s twice", n.ID)
		}
		names[n.ID.Name], uids[n.ID.UID] = true, true
	}
	return nil
}

func checkNode(n keymgr.LiveNode) error {
	if err := n.ID.Validate(); err != nil {
		return err
	}
	for _, a := range n.Addresses {
		if !canonical.Address(a) {
			return fmt.Errorf("node %s: address %q", n.ID, a)
		}
	}
	if err := checkPrefixes(n.PodCIDRs); err != nil {
		return fmt.Errorf("node %s: %w", n.ID, err)
	}
	return nil
}

func checkPrefixes(all []netip.Prefix) error {
	for _, p := range all {
		if !canonical.Prefix(p) {
			return fmt.Errorf("address range %q", p)
		}
	}
	return nil
}

// mustBe refuses the checkpoint of another node. owner is nil for a node without keys.
func (p State) mustBe(node string, owner *identity.Owner) error {
	switch {
	case p.Self.ID.Name != node:
		return fmt.Errorf("%w: the checkpoint is that of node %s", ErrOther, p.Self.ID)
	case owner != nil && (*owner != identity.Owner{Node: p.Self.ID, TrustDomain: p.TrustDomain}):
		return fmt.Errorf("%w: the checkpoint is that of node %s in cluster %s, the keys are those of node %s in cluster %s",
			ErrOther, p.Self.ID, p.TrustDomain, owner.Node, owner.TrustDomain)
	}
	return nil
}

// equalNodes reports whether a and b are the same Node, as far as a plan depends on it.
func equalNodes(a, b keymgr.LiveNode) bool {
	return a.ID == b.ID && slices.Equal(a.PodCIDRs, b.PodCIDRs) && slices.Equal(a.Addresses, b.Addresses) &&
		a.Created.Equal(b.Created) && a.ControlPlane == b.ControlPlane
}
