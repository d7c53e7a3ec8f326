// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"time"

	"github.com/sealane/sealane/internal/canonical"
)

// leaseVersion is the version of the stored form.
const leaseVersion = 1

// Owner names the holder of a lease: one device of one sandbox.
type Owner struct {
	ContainerID, IfName string
}

// String returns containerID/ifname.
func (o Owner) String() string { return o.ContainerID + "/" + o.IfName }

// Meta is what a lease records about its owner, so that a daemon can find the pod again
// after a restart.
type Meta struct {
	// Namespace, Name and UID name the pod; empty if there is none.
	Namespace, Name, UID string
	// Netns is the path of the pod's network namespace.
	Netns string
	// Network is the name of the CNI network configuration.
	Network string
}

// Lease is the right of an owner to its addresses.
type Lease struct {
	Owner Owner
	Meta  Meta
	// Addresses has one address per family, in the order of the prefixes.
	Addresses []netip.Addr
	// Created is when the lease was first given.
	Created time.Time
	// Released is when the owner returned the lease; zero while it is held. A released
	// lease is kept until the reuse delay has passed.
	Released time.Time
}

// storedLease is the form of a lease on disk.
type storedLease struct {
	Version     int          `json:"version"`
	ContainerID string       `json:"containerID"`
	IfName      string       `json:"ifName"`
	Namespace   string       `json:"podNamespace,omitempty"`
	Name        string       `json:"podName,omitempty"`
	UID         string       `json:"podUID,omitempty"`
	Netns       string       `json:"netns,omitempty"`
	Network     string       `json:"network,omitempty"`
	Addresses   []netip.Addr `json:"addresses"`
	Created     time.Time    `json:"created"`
	Released    time.Time    `json:"released,omitzero"`
}

// encode returns the stored form of the lease.
func (l Lease) encode() ([]byte, error) {
	data, err := json.MarshalIndent(storedLease{
		Version:     leaseVersion,
		ContainerID: l.Owner.ContainerID, IfName: l.Owner.IfName,
		Namespace: l.Meta.Namespace, Name: l.Meta.Name, UID: l.Meta.UID,
		Netns: l.Meta.Netns, Network: l.Meta.Network,
		Addresses: l.Addresses,
		Created:   l.Created.UTC(), Released: l.Released.UTC(),
	}, "", "  ")
	return append(data, '\n'), err
}

// ParseLease reads the stored form of a lease. It ignores unknown fields, so that a daemon
// can be rolled back. Errors wrap ErrLease.
func ParseLease(data []byte) (Lease, error) {
	var s storedLease
	dec := json.NewDecoder(bytes.NewReader(data))
	if err := dec.Decode(&s); err != nil {
		return Lease{}, fmt.Errorf("%w: %w", ErrLease, err)
	}
	if _, err := dec.Token(); err != io.EOF {
		return Lease{}, fmt.Errorf("%w: something follows the JSON object", ErrLease)
	}
	if s.Version != leaseVersion {
		return Lease{}, fmt.Errorf("%w: version is %d, want %d", ErrLease, s.Version, leaseVersion)
	}
	l := Lease{
		Owner:     Owner{ContainerID: s.ContainerID, IfName: s.IfName},
		Meta:      Meta{Namespace: s.Namespace, Name: s.Name, UID: s.UID, Netns: s.Netns, Network: s.Network},
		Addresses: s.Addresses,
		Created:   s.Created,
		Released:  s.Released,
	}
	return l, l.validate()
}

// validate returns an error that says why l is impossible as a lease.
func (l Lease) validate() error {
	if err := l.Owner.validate(); err != nil {
		return fmt.Errorf("%w: %w", ErrLease, err)
	}
	if l.Created.IsZero() {
		return fmt.Errorf("%w: created is missing", ErrLease)
	}
	for _, t := range []time.Time{l.Created, l.Released} {
		// RFC 3339 has four digits for the year, and every lease that was read must be
		// writable.
		if y := t.UTC().Year(); y < 1 || y > 9999 {
			return fmt.Errorf("%w: time %s is in year %d; want 1 to 9999", ErrLease, t, y)
		}
	}
	return validAddresses(l.Addresses)
}

// validate returns an error that says what an owner lacks.
func (o Owner) validate() error {
	if o.ContainerID == "" || o.IfName == "" {
		return fmt.Errorf("%w: container ID %q, interface name %q; neither may be empty", ErrOwner, o.ContainerID, o.IfName)
	}
	return nil
}

// validAddresses checks that there are one or two addresses a pod can have, of
// different families.
func validAddresses(addrs []netip.Addr) error {
	if len(addrs) < 1 || len(addrs) > 2 {
		return fmt.Errorf("%w: %d addresses, want one per family", ErrLease, len(addrs))
	}
	for _, a := range addrs {
		if !canonical.Address(a) || a.IsUnspecified() || a.IsLoopback() || a.IsMulticast() {
			return fmt.Errorf("%w: address %q cannot be a pod's", ErrLease, a)
		}
	}
	if len(addrs) == 2 && addrs[0].Is4() == addrs[1].Is4() {
		return fmt.Errorf("%w: addresses %v are of the same family", ErrLease, addrs)
	}
	return nil
}

// fileName returns the name under which the lease is stored: its addresses, so that a file
// whose content was lost still shows which addresses it blocks.
func fileName(addrs []netip.Addr) string {
	names := make([]string, len(addrs))
	for i, a := range addrs {
		names[i] = a.String()
	}
	return strings.Join(names, "_") + leaseSuffix
}

// parseFileName is the inverse of fileName; ok is false for any other name.
func parseFileName(name string) (addrs []netip.Addr, ok bool) {
	base, ok := strings.CutSuffix(name, leaseSuffix)
	if !ok {
		return nil, false
	}
	for part := range strings.SplitSeq(base, "_") {
		a, err := netip.ParseAddr(part)
		if err != nil {
			return nil, false
		}
		addrs = append(addrs, a)
	}
	// An address must have only one spelling, because two files could otherwise hold the
	// same lease.
	return addrs, validAddresses(addrs) == nil && fileName(addrs) == name
}
