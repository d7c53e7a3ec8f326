// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"fmt"
	"net/netip"
	"net/url"
	"strings"
)

const (
	maxNameLength = 253 // of a Kubernetes object name (RFC 1123 subdomain)
	maxUIDLength  = 64
)

// NodeID identifies one life of a node: a Node object that is deleted and created again
// under the same name has another UID and is another node.
type NodeID struct {
	Name string `json:"name"`
	UID  string `json:"uid"`
}

// String returns name and UID for logs.
func (id NodeID) String() string { return id.Name + "/" + id.UID }

// Validate refuses names and UIDs that could not stand in a node's URI.
func (id NodeID) Validate() error {
	if !isSubdomain(id.Name) {
		return fmt.Errorf("invalid node name %q: want a DNS subdomain in lower case", id.Name)
	}
	if !isUID(id.UID) {
		return fmt.Errorf("invalid node UID %q: want letters, digits and hyphens", id.UID)
	}
	return nil
}

// URI returns the only name that a certificate of this node carries,
// spiffe://<trust-domain>/node/<name>/<uid>.
func (id NodeID) URI(trustDomain string) *url.URL {
	return &url.URL{Scheme: "spiffe", Host: trustDomain, Path: "/node/" + id.Name + "/" + id.UID}
}

// ParseURI is the inverse of NodeID.URI. It accepts that one spelling only.
func ParseURI(u *url.URL) (trustDomain string, id NodeID, err error) {
	parts := strings.Split(u.Path, "/")
	if len(parts) != 4 || parts[0] != "" || parts[1] != "node" {
		return "", NodeID{}, fmt.Errorf("parse node URI %q: want spiffe://<trust-domain>/node/<name>/<uid>", u)
	}
	id = NodeID{Name: parts[2], UID: parts[3]}
	if err := id.Validate(); err != nil {
		return "", NodeID{}, fmt.Errorf("parse node URI %q: %w", u, err)
	}
	if err := ValidateTrustDomain(u.Host); err != nil {
		return "", NodeID{}, fmt.Errorf("parse node URI %q: %w", u, err)
	}
	if u.String() != id.URI(u.Host).String() {
		return "", NodeID{}, fmt.Errorf("parse node URI %q: want %q", u, id.URI(u.Host))
	}
	return u.Host, id, nil
}

// ValidateTrustDomain refuses trust domains that X.509 name constraints could not
// bind: it must be a DNS name in lower case (the UID of kube-system is one).
func ValidateTrustDomain(td string) error {
	if _, err := netip.ParseAddr(td); err == nil || !isSubdomain(td) {
		return fmt.Errorf("invalid trust domain %q: want a DNS name in lower case", td)
	}
	return nil
}

// isSubdomain checks RFC 1123 labels of letters, digits and inner hyphens, joined by dots.
func isSubdomain(s string) bool {
	if len(s) > maxNameLength {
		return false
	}
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || label[0] == '-' || label[len(label)-1] == '-' || !only(label, isLower) {
			return false
		}
	}
	return true
}

func isUID(s string) bool {
	return s != "" && len(s) <= maxUIDLength && s[0] != '-' && only(s, isAlnum)
}

func only(s string, ok func(byte) bool) bool {
	for i := range len(s) {
		if s[i] != '-' && !ok(s[i]) {
			return false
		}
	}
	return true
}

func isLower(c byte) bool { return c >= 'a' && c <= 'z' || c >= '0' && c <= '9' }

func isAlnum(c byte) bool { return isLower(c) || c >= 'A' && c <= 'Z' }
