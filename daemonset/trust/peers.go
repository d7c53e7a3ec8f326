// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
)

// overtakenFor is how long a statement whose root was just dropped may wait for its
// successor before an operator hears of it.
const overtakenFor = 30 * time.Second

// judge says what holds of a node.
type judge interface {
	Verify(keymgr.Signed, keymgr.LiveNode) (keymgr.Peer, error)
	Revoked(keymgr.NodeID, keymgr.CertificateInfo) (keymgr.RevocationReason, bool)
	Addresses(keymgr.NodeID) []netip.Addr
}

// memory is what nodes hold.
type memory interface {
	Forget(keymgr.NodeID) error
	Release([]keymgr.LiveNode)
	Remembered() []keymgr.Record
}

// verifier is what the peerVerifier needs of keymgr.Verifier.
type verifier interface {
	judge
	memory
}

// Result is the outcome for one node: a verified peer, or why there is none. Both
// are set when an earlier statement stays in force although the newest is refused.
type Result struct {
	Node kube.Node
	Peer keymgr.Peer // without Keys: this node must have no lane to it
	// Addresses are those of the live Node that are verified, or were when the node's
	// statement was accepted last.
	Addresses []netip.Addr
	Err       error
}

// acceptance is the newest accepted statement of a node.
type acceptance struct {
	keymgr.Peer
	signed keymgr.Signed // zero: accepted by an earlier daemon
	lapsed time.Time     // when its root was found to be no longer trusted; zero: it is trusted
}

// peerVerifier verifies what the API server says of the other nodes, and counts
// what it refuses. When a statement is refused or a NodeKey is gone, the statement
// accepted before stays in force: whoever can write NodeKeys, and no more, cannot
// cut a node off. Only the revocation list can.
type peerVerifier struct {
	verifier verifier
	events   Events
	log      *slog.Logger
	clock    func() time.Time

	mu                 sync.Mutex // guards what status reads
	refusals           []status.Refusal
	continuityWarnings []status.Refusal // of statements that were accepted
	refusedAddresses   []status.Refusal // the same

	accepted map[string]acceptance    // by node UID
	refused  map[string]keymgr.Signed // by node UID: the newest refused statement, already reported
	cut      map[string]bool          // UIDs of revoked nodes, already reported
	known    map[string]keymgr.NodeID // by UID: nodes of the last pass, or of earlier daemons
	// doubted are the refused addresses by node UID and warning, and since when; the zero
	// time: already reported.
	doubted map[string]map[string]time.Time
}

func newPeerVerifier(v verifier, events Events, log *slog.Logger, restored []keymgr.Peer) *peerVerifier {
	p := &peerVerifier{
		verifier: v, events: events, log: log, clock: time.Now,
		accepted: map[string]acceptance{}, refused: map[string]keymgr.Signed{}, cut: map[string]bool{}, known: map[string]keymgr.NodeID{},
		doubted: map[string]map[string]time.Time{},
	}
	for _, peer := range restored {
		p.accepted[peer.ID.UID] = acceptance{Peer: peer}
	}
	// Also nodes whose statement has expired meanwhile: they hold pod ranges.
	for _, r := range v.Remembered() {
		p.known[r.ID.UID] = r.ID
	}
	return p
}

// verify decides on every other node of a snapshot, and forgets those that are gone.
func (p *peerVerifier) verify(ctx context.Context, snap cluster.Snapshot, self string) []Result {
	present := map[string]keymgr.NodeID{}
	var all []Result
	var live []keymgr.LiveNode
	for _, n := range snap.Nodes {
		if n.Name != self {
			present[n.UID] = n.ID()
			all, live = append(all, Result{Node: n}), append(live, n.Live())
		}
	}
	// First: a new node may have the pod ranges and addresses of one that is gone, and an
	// address can pass from one node to another.
	p.forgetAllBut(present)
	p.verifier.Release(live)
	for _, i := range byAge(live) {
		all[i] = p.node(ctx, all[i].Node, snap)
	}
	for i, r := range all { // when everybody's claims are known
		all[i].Addresses = slices.DeleteFunc(p.verifier.Addresses(r.Node.ID()), func(a netip.Addr) bool { return !slices.Contains(r.Node.Addresses, a) })
	}
	return all
}

// byAge returns the indices of nodes, the oldest first: of two that claim the same and are
// met at once, the older keeps it.
func byAge(nodes []keymgr.LiveNode) []int {
	order := make([]int, len(nodes))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(i, j int) int { return nodes[i].Older(nodes[j]) })
	return order
}

func (p *peerVerifier) forgetAllBut(present map[string]keymgr.NodeID) {
	for uid, id := range p.known {
		if _, ok := present[uid]; ok {
			continue
		}
		if err := p.verifier.Forget(id); err != nil {
			p.log.Error("records of a deleted node not removed", "node", id.Name, "error", err)
		}
		delete(p.accepted, uid)
		delete(p.refused, uid)
		delete(p.cut, uid)
		delete(p.doubted, uid)
	}
	p.known = present
}

func (p *peerVerifier) node(ctx context.Context, n kube.Node, snap cluster.Snapshot) Result {
	if err := p.revoked(ctx, n); err != nil {
		return Result{Node: n, Err: err}
	}
	signed, ok := snap.NodeKeys[n.Name]
	if !ok {
		return Result{Node: n, Peer: p.inForce(n), Err: ErrNoStatement}
	}
	peer, err := p.verifier.Verify(signed, n.Live())
	if err == nil {
		p.accepted[n.UID] = acceptance{Peer: peer, signed: signed}
		delete(p.refused, n.UID)
		p.warnContinuity(ctx, n, peer)
		p.warnAddresses(ctx, n, peer)
		return Result{Node: n, Peer: peer}
	}
	if !p.refused[n.UID].Equal(signed) && !p.overtaken(n.UID, signed, err) {
		p.refused[n.UID] = signed
		p.refuse(ctx, n, err)
	}
	return Result{Node: n, Peer: p.inForce(n), Err: err}
}

// revoked drops what was accepted of a node that is revoked since, whatever the node
// publishes now or has withdrawn. An error means that the node is blocked altogether.
func (p *peerVerifier) revoked(ctx context.Context, n kube.Node) error {
	if reason, ok := p.verifier.Revoked(n.ID(), keymgr.CertificateInfo{}); ok {
		delete(p.accepted, n.UID)
		err := fmt.Errorf("%w: %s", keymgr.ErrRevoked, reason)
		if !p.cut[n.UID] {
			p.cut[n.UID] = true
			p.refuse(ctx, n, err)
		}
		return err
	}
	delete(p.cut, n.UID)
	if _, ok := p.verifier.Revoked(n.ID(), p.accepted[n.UID].Certificate); ok {
		delete(p.accepted, n.UID)
	}
	return nil
}

// inForce is what was accepted of a node before, as long as it may be used. The
// zero Peer has no keys.
func (p *peerVerifier) inForce(n kube.Node) keymgr.Peer {
	if old, ok := p.accepted[n.UID]; ok && p.clock().Before(old.Until) {
		return old.Peer
	}
	return keymgr.Peer{}
}

// overtaken reports whether what is refused is the accepted statement itself,
// because its root is no longer trusted. A root is dropped when each node has a
// certificate below another root and has said so in a new statement. Statements
// arrive by another watch than roots, and may arrive later: the operator hears of
// it only if the new statement does not arrive in time.
func (p *peerVerifier) overtaken(uid string, signed keymgr.Signed, err error) bool {
	old := p.accepted[uid]
	if !errors.Is(err, keymgr.ErrChain) || !old.signed.Equal(signed) {
		return false
	}
	if old.lapsed.IsZero() {
		old.lapsed = p.clock()
		p.accepted[uid] = old
	}
	return p.clock().Sub(old.lapsed) < overtakenFor
}

func (p *peerVerifier) refuse(ctx context.Context, n kube.Node, err error) {
	reason := keymgr.RejectReason(err)
	event := kube.EventSpec{
		Kind: kube.KindNode, Name: n.Name, UID: n.UID, Type: kube.EventWarning, Reason: "KeyStatementRefused",
		Message: "key statement refused (" + reason + "): " + err.Error(),
	}
	if p.cut[n.UID] {
		event.Reason, event.Message = "LanesCut", "lanes to this node cut: "+err.Error()
	}
	p.log.Warn("node refused", "node", n.Name, "reason", reason, "error", err)
	p.events.Event(ctx, event)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusals = status.Count(p.refusals, status.Refusal{Node: n.Name, Reason: reason, Message: err.Error(), Last: p.clock()})
}

// warnContinuity reports a node whose certificate key changed although the key
// before does not vouch for it. It reports once: the next check of the same
// statement finds nothing new.
func (p *peerVerifier) warnContinuity(ctx context.Context, n kube.Node, peer keymgr.Peer) {
	for _, w := range peer.Warnings {
		if w.Code != keymgr.WarnContinuity {
			continue
		}
		p.log.Error("certificate key changed without continuity", "node", n.Name, "serial", peer.Certificate.Serial, "warning", w.Text)
		p.events.Event(ctx, kube.EventSpec{
			Kind: kube.KindNode, Name: n.Name, UID: n.UID, Type: kube.EventWarning, Reason: "ContinuityBroken", Message: w.Text,
		})
		p.mu.Lock()
		p.continuityWarnings = status.Count(p.continuityWarnings, status.Refusal{Node: n.Name, Reason: w.Code, Message: w.Text, Last: p.clock()})
		p.mu.Unlock()
	}
}

// warnAddresses reports, once each, the addresses of a node that are not taken for its
// own. A node that has got another address says so before it has a certificate for it, so
// an operator hears of an address only if the certificate does not come.
func (p *peerVerifier) warnAddresses(ctx context.Context, n kube.Node, peer keymgr.Peer) {
	before, now := p.doubted[n.UID], p.clock()
	doubts := map[string]time.Time{}
	for _, w := range peer.Warnings {
		if w.Code != keymgr.WarnAddress {
			continue
		}
		since, seen := before[w.Text]
		switch {
		case !seen:
			since = now
		case !since.IsZero() && now.Sub(since) >= overtakenFor:
			since = time.Time{}
			p.refuseAddress(ctx, n, w)
		}
		doubts[w.Text] = since
	}
	p.doubted[n.UID] = doubts
	if len(doubts) == 0 {
		delete(p.doubted, n.UID)
	}
}

func (p *peerVerifier) refuseAddress(ctx context.Context, n kube.Node, w keymgr.Warning) {
	p.log.Warn("address of a node refused", "node", n.Name, "reason", w.Text)
	p.events.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: n.Name, UID: n.UID, Type: kube.EventWarning, Reason: "NodeAddressRefused", Message: w.Text,
	})
	p.mu.Lock()
	defer p.mu.Unlock()
	p.refusedAddresses = status.Count(p.refusedAddresses, status.Refusal{Node: n.Name, Reason: w.Code, Message: w.Text, Last: p.clock()})
}

// counts are refusals and warnings since the daemon started, by node and reason.
type counts struct{ refusals, continuityWarnings, refusedAddresses []status.Refusal }

func (p *peerVerifier) counts() counts {
	p.mu.Lock()
	defer p.mu.Unlock()
	return counts{slices.Clone(p.refusals), slices.Clone(p.continuityWarnings), slices.Clone(p.refusedAddresses)}
}
