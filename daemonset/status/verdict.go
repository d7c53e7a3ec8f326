// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/sealane/sealane/daemonset/status/words"
)

// State is the answer to "is it encrypted?" in a word.
type State string

// The states of a cluster, or of the part of it that was asked.
const (
	// Encrypted is the one good state: every node is ready, every lane is up and
	// encrypted, and nothing is about to end that.
	Encrypted State = "encrypted"
	// Degraded means that all traffic is encrypted, but some of it cannot travel, or
	// some nodes gave no report.
	Degraded State = "degraded"
	// NotEncrypted means that at least one node sends packets in the clear.
	NotEncrypted State = "not_encrypted"
	// Unknown means that no node answered.
	Unknown State = "unknown"
)

// overdue is how long after its time a renewal may still be under way.
const overdue = 10 * time.Minute

// Verdict is the judgement over a Cluster.
type Verdict struct {
	State   State  `json:"state"`
	Summary string `json:"summary"` // one line
	// Problems are why State is not Encrypted, each a line.
	Problems []string `json:"problems,omitempty"`
	// Warnings deserve attention but do not change State, each a line.
	Warnings []string `json:"warnings,omitempty"`
}

// Good reports whether all is as it should be.
func (v Verdict) Good() bool { return v.State == Encrypted }

// Judge returns the verdict over a Cluster. It depends on nothing but the reports.
func Judge(c Cluster) Verdict {
	j := newJudge(c)
	for _, s := range c.Silent {
		j.problem("%s: no report: %s", s.Name, s.Problem)
	}
	for _, n := range c.Nodes {
		j.node(n)
		j.lanes(n)
		j.warnings(n)
	}
	j.bundles()
	return Verdict{State: j.state(), Summary: j.summary(), Problems: j.problems, Warnings: j.warned}
}

// judge is a verdict under construction.
type judge struct {
	cluster  Cluster
	known    []string        // every node in any report, sorted
	keys     map[string]Key  // of the nodes that answered
	kinds    map[string]bool // of lane, with backend
	problems []string
	warned   []string

	ready, plaintext, up int
	first                time.Duration // until the first certificate ends
	certified            bool          // first is set
}

func newJudge(c Cluster) *judge {
	j := &judge{cluster: c, keys: map[string]Key{}, kinds: map[string]bool{}}
	for _, s := range c.Silent {
		j.known = append(j.known, s.Name)
	}
	for _, n := range c.Nodes {
		j.known = append(j.known, n.Name)
		j.keys[n.Name] = n.Key
		j.kinds[n.Encapsulation.String()] = true
		for _, p := range n.Peers {
			j.known = append(j.known, p.Name)
		}
	}
	slices.Sort(j.known)
	j.known = slices.Compact(j.known)
	return j
}

func (j *judge) problem(format string, args ...any) {
	j.problems = append(j.problems, words.Printable(fmt.Sprintf(format, args...)))
}

func (j *judge) warn(format string, args ...any) {
	j.warned = append(j.warned, words.Printable(fmt.Sprintf(format, args...)))
}

// node checks what a node reports of itself.
func (j *judge) node(n Node) {
	if n.Ready {
		j.ready++
	} else {
		j.problem("%s: not ready: %s", n.Name, n.WhyNotReady())
	}
	if n.BundleRefused != "" {
		j.problem("%s: keeps its trust bundle: %s", n.Name, n.BundleRefused)
	}
	if n.Revocations.Revoked != "" {
		j.problem("%s: is revoked: %s", n.Name, n.Revocations.Revoked)
	}
	if len(n.Uplinks) == 0 {
		j.problem("%s: the leak guard watches no device", n.Name)
	}
	if n.Encapsulation.Kind == "" {
		j.problem("%s: its report does not say how packets travel: is its agent of another version?", n.Name)
	}
	if n.Encapsulation.Plaintext {
		j.plaintext++
		return // such a node needs no key and no certificate
	}
	if n.Certificate.Serial == "" {
		j.problem("%s: no certificate yet", n.Name)
	} else {
		j.certificate(n)
	}
	if words.Past(n.Time, n.Statement.NotAfter) {
		j.problem("%s: its key statement expired %s", n.Name, words.Ago(n.Time, n.Statement.NotAfter))
	}
}

func (j *judge) certificate(n Node) {
	c := n.Certificate
	if left := c.NotAfter.Sub(n.Time); !j.certified || left < j.first {
		j.first, j.certified = left, true
	}
	switch {
	case words.Past(n.Time, c.NotAfter):
		j.problem("%s: its certificate expired %s", n.Name, words.Ago(n.Time, c.NotAfter))
	case words.Past(n.Time, c.RenewAt) && n.Time.Sub(c.RenewAt) > overdue:
		j.warn("%s: its certificate should have been renewed %s", n.Name, words.Ago(n.Time, c.RenewAt))
	}
}

// WhyNotReady returns what is still missing, in words.
func (n Node) WhyNotReady() string {
	if len(n.NotReadyReasons) == 0 {
		return "no reason given"
	}
	return strings.Join(n.NotReadyReasons, "; ")
}

// lanes checks a node's lanes to all known nodes.
func (j *judge) lanes(n Node) {
	peers := map[string]Peer{}
	for _, p := range n.Peers {
		peers[p.Name] = p
	}
	for _, name := range j.known {
		p, ok := peers[name]
		switch {
		case name == n.Name:
		case !ok:
			j.problem("%s to %s: no lane: %s does not know that node", n.Name, name, n.Name)
		default:
			j.lane(n, p)
		}
	}
}

func (j *judge) lane(n Node, p Peer) {
	if p.State == Connected {
		j.up++
	} else {
		j.problem("%s to %s: %s%s", n.Name, p.Name, p.State.Words(), suffix(p.Reason))
	}
	if p.Grace {
		j.problem("%s to %s: the peer's certificate or statement has expired; the lane lives on only in the grace period", n.Name, p.Name)
	}
	// No node can check this alone: does a node encrypt to the key that its peer has?
	// Generations differ while a key is rotated.
	if own, ok := j.keys[p.Name]; ok && p.PublicKey != "" && own.Generation == p.Generation && own.PublicKey != p.PublicKey {
		j.problem("%s to %s: encrypts to key %s, but %s has key %s", n.Name, p.Name, p.PublicKey, p.Name, own.PublicKey)
	}
}

// Words returns the state as people read it.
func (s PeerState) Words() string { return strings.ReplaceAll(string(s), "_", " ") }

func suffix(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

func (j *judge) warnings(n Node) {
	for _, r := range n.Refused {
		j.warn("%s refused %s of %s (%s), last %s: %s",
			n.Name, words.Plural(r.Count, "statement"), r.Node, r.Reason, words.Ago(n.Time, r.Last), r.Message)
	}
	for _, r := range n.RefusedAddresses {
		j.warn("%s does not take an address of %s for its own, last %s: %s", n.Name, r.Node, words.Ago(n.Time, r.Last), r.Message)
	}
	for _, d := range n.ContinuityWarnings {
		j.warn("%s accepted a certificate key of %s that its previous key does not vouch for, last %s: %s",
			n.Name, d.Node, words.Ago(n.Time, d.Last), d.Message)
	}
	if r := n.Rotation; r.Overdue {
		j.warn("%s: its key rotation went on without %s", n.Name, strings.Join(r.Waiting, ", "))
	}
	for _, p := range n.Pairings {
		if p.Result == "downgrade" || p.Result == "certificate" || p.Result == "protocol" {
			j.warn("%s: %s of preshared keys failed as %s: %s", n.Name, words.Plural(p.Count, "exchange"), p.Role, p.Result)
		}
	}
	if n.PostQuantum != "" && n.PostQuantum != "required" && !n.Encapsulation.Plaintext {
		j.warn("%s: post-quantum preshared keys are %s", n.Name, n.PostQuantum)
	}
	for _, d := range n.Drops {
		if strings.HasPrefix(d.Reason, "leak_") && d.Packets > 0 {
			j.warn("%s: the leak guard stopped %s (%s)%s", n.Name, words.Plural(d.Packets, "packet"), d.Reason, lastLeak(n, d.Reason))
		}
	}
}

func lastLeak(n Node, reason string) string {
	if n.LastLeak == nil || n.LastLeak.Reason != reason {
		return ""
	}
	return ", last " + n.LastLeak.String()
}

// bundles compares the trust bundles, which may differ during a root rotation.
func (j *judge) bundles() {
	nodes := map[string][]string{}
	for _, n := range j.cluster.Nodes {
		if n.BundleHash != "" {
			nodes[n.BundleHash] = append(nodes[n.BundleHash], n.Name)
		}
	}
	if len(nodes) < 2 {
		return
	}
	var parts []string
	for hash, names := range nodes {
		parts = append(parts, fmt.Sprintf("%s on %s", hash[:min(len(hash), 12)], strings.Join(names, ", ")))
	}
	slices.Sort(parts)
	j.warn("trust bundles differ: %s", strings.Join(parts, "; "))
}

func (j *judge) state() State {
	switch {
	case j.plaintext > 0:
		return NotEncrypted
	case len(j.cluster.Nodes) == 0:
		return Unknown
	case len(j.problems) > 0:
		return Degraded
	}
	return Encrypted
}

func (j *judge) summary() string {
	total := len(j.cluster.Nodes) + len(j.cluster.Silent)
	all := fmt.Sprintf("%d of %d nodes ready, %s", j.ready, total, j.laneCount(total))
	switch j.state() {
	case NotEncrypted:
		return fmt.Sprintf("NOT ENCRYPTED: plaintext lanes (--insecure-plaintext) on %d of %d nodes; %s", j.plaintext, total, all)
	case Unknown:
		if total == 0 {
			return "UNKNOWN: there is no node to ask"
		}
		return fmt.Sprintf("UNKNOWN: none of %d nodes answered", total)
	case Degraded:
		return "DEGRADED: " + all
	}
	return "encrypted: " + all + j.means()
}

// laneCount counts each direction as a lane, since either can be down alone.
func (j *judge) laneCount(nodes int) string {
	if len(j.known) < 2 {
		return "no lane needed"
	}
	return fmt.Sprintf("%d of %d lanes up", j.up, nodes*(len(j.known)-1))
}

// means says what encrypts the lanes, and when the first certificate expires.
func (j *judge) means() string {
	kinds := make([]string, 0, len(j.kinds))
	for kind := range j.kinds {
		kinds = append(kinds, kind)
	}
	slices.Sort(kinds)
	return fmt.Sprintf(", %s, first certificate expires in %s", strings.Join(kinds, " and "), words.Duration(j.first))
}
