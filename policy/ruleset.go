// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"
)

// RuleSet is all that policies allow a pod in one direction. Sets of one key allow the same,
// whichever policies they come from. Zero allows nothing.
type RuleSet struct {
	Any      PortSpec            // of every peer, by number
	Pods     PortSpec            // of every pod that has an identity, by number
	Selected map[string]PeerRule // by the peer's key
}

// Empty reports whether it allows nothing.
func (s *RuleSet) Empty() bool { return s.Any.Empty() && s.Pods.Empty() && len(s.Selected) == 0 }

// Prune leaves out what is allowed anyway, so that a rule that allows
// everything to all does not keep thousands of others in the tables.
func (s *RuleSet) Prune() {
	if s.Any.All {
		s.Pods, s.Selected = PortSpec{}, nil
	}
	if s.Pods.All {
		maps.DeleteFunc(s.Selected, func(_ string, r PeerRule) bool { return r.Peer.Kind == SelectedPods })
	}
}

// Add allows what a rule allows.
func (s *RuleSet) Add(r PeerRule) {
	numbers, names := r.Ports.split()
	switch r.Peer.Kind {
	case AnyPeer:
		s.Any = s.Any.Union(numbers)
		s.addSelected(allPods(), names) // only pods have names for ports
	case EveryPod:
		s.Pods = s.Pods.Union(numbers)
		s.addSelected(allPods(), names)
	case SelectedPods:
		s.addSelected(r.Peer, r.Ports)
	case Block:
		s.addSelected(r.Peer, numbers)
	}
}

func (s *RuleSet) addSelected(peer Peer, ports PortSpec) {
	if ports.Empty() {
		return
	}
	if s.Selected == nil {
		s.Selected = map[string]PeerRule{}
	}
	s.Selected[peer.Key] = PeerRule{peer, s.Selected[peer.Key].Ports.Union(ports)}
}

// Key is the canonical form.
func (s *RuleSet) Key() string {
	var b strings.Builder
	fmt.Fprintf(&b, "any%s\npods%s\n", s.Any.Key(), s.Pods.Key())
	for _, k := range slices.Sorted(maps.Keys(s.Selected)) {
		fmt.Fprintf(&b, "%s%s\n", k, s.Selected[k].Ports.Key())
	}
	return b.String()
}
