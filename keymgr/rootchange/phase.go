// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rootchange

import (
	"cmp"
	"crypto/x509"
	"encoding/hex"
	"slices"
	"time"

	"github.com/sealane/sealane/keymgr"
)

// Phase is how far a change of roots has got. Each phase is stored before it has an effect.
type Phase string

// The phases, in their order.
const (
	// PhaseSteady: one root is trusted and issues.
	PhaseSteady Phase = "steady"
	// PhaseAnnounced: two roots are trusted, the old one issues. It ends when
	// every node that is ready has both.
	PhaseAnnounced Phase = "announced"
	// PhaseSwitched: two roots are trusted, the new one issues, and nodes renew
	// in the window. It ends when no certificate in use leads to the old one.
	PhaseSwitched Phase = "switched"
	// PhaseDropped: the new root alone is trusted. It ends when every node that
	// is ready has forgotten the old one.
	PhaseDropped Phase = "dropped"
)

// Fleet is what a change of roots depends on.
type Fleet struct {
	// Request is when an operator last asked for a new root; zero means never.
	Request time.Time
	// Nodes are the nodes that have published a NodeKey. A node without one does not trust
	// any root yet and starts with the newest bundle.
	Nodes []NodeReport
}

// NodeReport is what is known of one node.
type NodeReport struct {
	Name string
	// Ready is the condition of the Node object. A change of roots does not wait for a node
	// that is not ready: its ServiceAccount gets it a new certificate whatever it missed.
	Ready bool
	// BundleHash is keymgr.HashBundle of the bundle that the node verifies with; "" means
	// that the node has not reported one.
	BundleHash string
	// Chain is the certificate chain in its NodeKey (DER, leaf first).
	Chain [][]byte
}

// Holdup is a node that the next phase waits for.
type Holdup struct {
	Node   string `json:"node"`
	Reason string `json:"reason"`
}

// Stage is a phase with what decides when it may end.
type Stage struct {
	Phase Phase
	// Bundle is the hash of the bundle in force.
	Bundle string
	// OldRoot is the key identifier of the root to drop; "" means that there is none.
	OldRoot string
}

// Waits returns the nodes that the end of the phase waits for, sorted by name.
func (s Stage) Waits(nodes []NodeReport, now time.Time) []Holdup {
	if s.Phase == PhaseSteady {
		return nil
	}
	var all []Holdup
	for _, n := range nodes {
		if why := s.wait(n, now); why != "" {
			all = append(all, Holdup{Node: n.Name, Reason: why})
		}
	}
	slices.SortFunc(all, func(a, b Holdup) int { return cmp.Compare(a.Node, b.Node) })
	return all
}

func (s Stage) wait(n NodeReport, now time.Time) string {
	if n.Ready && n.BundleHash != s.Bundle {
		if n.BundleHash == "" {
			return "has not reported a trust bundle"
		}
		return "has another trust bundle"
	}
	if s.Phase != PhaseSwitched {
		return ""
	}
	end, old := leadsTo(n.Chain, s.OldRoot)
	switch {
	case old && n.Ready:
		return "still has a certificate below the old root"
	case old && !now.After(end):
		return "is not ready, and has a certificate below the old root until " + end.UTC().Format(time.RFC3339)
	}
	return ""
}

// leadsTo reports whether a chain leads to the root with a key identifier, and when its
// leaf ends. A chain that cannot be read leads nowhere.
func leadsTo(chain [][]byte, root string) (end time.Time, ok bool) {
	if len(chain) == 0 {
		return end, false
	}
	top, err := x509.ParseCertificate(chain[len(chain)-1])
	if err != nil || hex.EncodeToString(top.AuthorityKeyId) != root {
		return end, false
	}
	leaf, err := keymgr.ParseCertificateInfo(chain[0])
	if err != nil {
		return end, false
	}
	return leaf.NotAfter, true
}
