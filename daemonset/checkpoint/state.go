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

	"github.com/sealane/sealane/keymgr"
)

const (
	// version is of the file's format. A file of another one is ignored: then the
	// daemon waits for the API server, which is what it did before there was a file.
	version = 1
	maxSize = 16 << 20 // bytes; 5,000 nodes without a record are 1 MB
)

// Picture is what is kept of the cluster.
type Picture struct {
	Version int `json:"version"`
	// TrustDomain and Self say whose picture it is, and for whom it was taken.
	TrustDomain string          `json:"trustDomain"`
	Self        keymgr.LiveNode `json:"self"`
	// ClusterCIDRs are the pod ranges that the cluster was set up with, as far as it
	// tells.
	ClusterCIDRs []netip.Prefix `json:"clusterCIDRs,omitempty"`
	// Published is the hash of the statement of this node that its peers can know of,
	// nil if there is none.
	Published *keymgr.Hash `json:"published,omitempty"`
	// Others are the nodes that keymgr has no record of, or another one.
	Others []keymgr.LiveNode `json:"others,omitempty"`
}

// Parse reads a picture, and refuses what no Encode has written.
func Parse(data []byte) (Picture, error) {
	if len(data) > maxSize {
		return Picture{}, fmt.Errorf("%w: %d bytes, at most %d", ErrFormat, len(data), maxSize)
	}
	var p Picture
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&p); err != nil {
		return Picture{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return Picture{}, fmt.Errorf("%w: data after the object", ErrFormat)
	}
	if err := p.validate(); err != nil {
		return Picture{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	return p, nil
}

// Encode gives the file's content.
func (p Picture) Encode() ([]byte, error) {
	p.Version = version
	if err := p.validate(); err != nil {
		return nil, fmt.Errorf("keep picture: %w", err)
	}
	return json.Marshal(p)
}

func (p Picture) validate() error {
	if p.Version != version {
		return fmt.Errorf("version %d, want %d", p.Version, version)
	}
	if err := keymgr.ValidateTrustDomain(p.TrustDomain); err != nil {
		return err
	}
	if len(p.Self.PodCIDRs) == 0 || len(p.Self.Addresses) == 0 {
		return fmt.Errorf("node %s without pod ranges or addresses", p.Self.ID)
	}
	if err := checkPrefixes(p.ClusterCIDRs); err != nil {
		return err
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
		if !a.IsValid() || a.Zone() != "" || a.Is4In6() {
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
		if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
			return fmt.Errorf("address range %q", p)
		}
	}
	return nil
}

// mustBe refuses the picture of anybody else. owner is nil for a node without keys.
func (p Picture) mustBe(node string, owner *keymgr.Owner) error {
	switch {
	case p.Self.ID.Name != node:
		return fmt.Errorf("%w: the picture is that of node %s", ErrOther, p.Self.ID)
	case owner != nil && (*owner != keymgr.Owner{Node: p.Self.ID, TrustDomain: p.TrustDomain}):
		return fmt.Errorf("%w: the picture is that of node %s in cluster %s, the keys are those of node %s in cluster %s",
			ErrOther, p.Self.ID, p.TrustDomain, owner.Node, owner.TrustDomain)
	}
	return nil
}

// equalNodes compares what is said of two nodes.
func equalNodes(a, b keymgr.LiveNode) bool {
	return a.ID == b.ID && slices.Equal(a.PodCIDRs, b.PodCIDRs) && slices.Equal(a.Addresses, b.Addresses)
}
