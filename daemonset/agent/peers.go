// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
)

// verifier is what the judge needs of keymgr.Verifier.
type verifier interface {
	Verify(keymgr.Signed, keymgr.LiveNode) (keymgr.Peer, error)
	Revoked(keymgr.NodeID, keymgr.CertificateInfo) (keymgr.RevocationReason, bool)
	Forget(keymgr.NodeID) error
	Remembered() []keymgr.Record
}

// reporter tells operators, as a Kubernetes Event, what they must know.
type reporter interface {
	Event(context.Context, kube.EventSpec)
}

// errNoStatement is why a node without a NodeKey has no lane.
var errNoStatement = errors.New("has not published a key statement yet")

// judged is the outcome for one node: a verified peer, or why there is none.
type judged struct {
	node kube.Node
	peer keymgr.Peer
	err  error
}

// acceptance is the newest accepted statement of a node.
type acceptance struct {
	keymgr.Peer
	signed keymgr.Signed // zero: by a daemon before this one
	lapsed time.Time     // when its root was found to be trusted no more
}

// judge verifies what the API server says of the other nodes, and counts what
// it refuses. A statement that is refused, or a NodeKey that is gone, leaves the
// one accepted before in force: who can write a NodeKey, and no more, cannot
// cut a node off. Only the revocation list can.
type judge struct {
	verifier verifier
	events   reporter
	log      *slog.Logger
	clock    func() time.Time

	mu       sync.Mutex // guards what status reads
	refusals []status.Refusal
	alarms   []status.Refusal // of what was accepted

	accepted map[string]acceptance    // by node UID
	refused  map[string]keymgr.Signed // by node UID: newest refused one, reported already
	cut      map[string]bool          // UIDs of revoked nodes, reported already
	known    map[string]keymgr.NodeID // nodes of the last pass, or of daemons before, by UID
}

func newJudge(v verifier, events reporter, log *slog.Logger, restored []keymgr.Peer) *judge {
	j := &judge{
		verifier: v, events: events, log: log, clock: time.Now,
		accepted: map[string]acceptance{}, refused: map[string]keymgr.Signed{}, cut: map[string]bool{}, known: map[string]keymgr.NodeID{},
	}
	for _, p := range restored {
		j.accepted[p.ID.UID] = acceptance{Peer: p}
	}
	// Also those whose statement has ended meanwhile: they hold pod ranges.
	for _, r := range v.Remembered() {
		j.known[r.ID.UID] = r.ID
	}
	return j
}

// pass judges every other node of a snapshot, and forgets those that are gone.
func (j *judge) pass(ctx context.Context, snap kube.Snapshot, self string) []judged {
	var all []judged
	present := map[string]keymgr.NodeID{}
	for _, n := range snap.Nodes {
		if n.Name == self {
			continue
		}
		present[n.UID] = keymgr.NodeID{Name: n.Name, UID: n.UID}
	}
	// First the gone, whose pod ranges and addresses a new node may have.
	for uid, id := range j.known {
		if _, ok := present[uid]; ok {
			continue
		}
		if err := j.verifier.Forget(id); err != nil {
			j.log.Error("node not forgotten", "node", id.Name, "error", err)
		}
		delete(j.accepted, uid)
		delete(j.refused, uid)
		delete(j.cut, uid)
	}
	j.known = present
	for _, n := range snap.Nodes {
		if n.Name != self {
			all = append(all, j.node(ctx, n, snap))
		}
	}
	return all
}

func (j *judge) node(ctx context.Context, n kube.Node, snap kube.Snapshot) judged {
	if err := j.revoked(ctx, n); err != nil {
		return judged{node: n, err: err}
	}
	signed, ok := snap.NodeKeys[n.Name]
	if !ok {
		return judged{node: n, peer: j.inForce(n), err: errNoStatement}
	}
	live := keymgr.LiveNode{ID: keymgr.NodeID{Name: n.Name, UID: n.UID}, PodCIDRs: n.PodCIDRs, Addresses: n.Addresses}
	peer, err := j.verifier.Verify(signed, live)
	if err == nil {
		j.accepted[n.UID] = acceptance{Peer: peer, signed: signed}
		delete(j.refused, n.UID)
		j.alarm(ctx, n, peer)
		return judged{node: n, peer: peer}
	}
	if !j.refused[n.UID].Equal(signed) && !j.overtaken(n.UID, signed, err) {
		j.refused[n.UID] = signed
		j.refuse(ctx, n, err)
	}
	return judged{node: n, peer: j.inForce(n), err: err}
}

// revoked takes what was accepted of a node out of force if it is revoked since,
// whatever the node publishes now or has withdrawn. The error says that the node
// is blocked altogether.
func (j *judge) revoked(ctx context.Context, n kube.Node) error {
	id := keymgr.NodeID{Name: n.Name, UID: n.UID}
	if reason, ok := j.verifier.Revoked(id, keymgr.CertificateInfo{}); ok {
		delete(j.accepted, n.UID)
		err := fmt.Errorf("%w: %s", keymgr.ErrRevoked, reason)
		if !j.cut[n.UID] {
			j.cut[n.UID] = true
			j.refuse(ctx, n, err)
		}
		return err
	}
	delete(j.cut, n.UID)
	if _, ok := j.verifier.Revoked(id, j.accepted[n.UID].Certificate); ok {
		delete(j.accepted, n.UID)
	}
	return nil
}

// inForce is what was accepted of a node before, while it may still be used;
// the zero Peer has no keys.
func (j *judge) inForce(n kube.Node) keymgr.Peer {
	if old, ok := j.accepted[n.UID]; ok && j.clock().Before(old.Until) {
		return old.Peer
	}
	return keymgr.Peer{}
}

// overtaken tells whether what is refused is the accepted statement itself, because
// its root is trusted no more. A root goes when each node has a certificate below
// another, and tells so by a statement, which comes by another watch than the roots
// and may come later. Only one that stays away for a resync is worth a word.
func (j *judge) overtaken(uid string, signed keymgr.Signed, err error) bool {
	old := j.accepted[uid]
	if !errors.Is(err, keymgr.ErrChain) || !old.signed.Equal(signed) {
		return false
	}
	if old.lapsed.IsZero() {
		old.lapsed = j.clock()
		j.accepted[uid] = old
	}
	return j.clock().Sub(old.lapsed) < resync
}

func (j *judge) refuse(ctx context.Context, n kube.Node, err error) {
	reason := keymgr.RejectReason(err)
	event := kube.EventSpec{
		Kind: kube.KindNode, Name: n.Name, UID: n.UID, Type: kube.EventWarning, Reason: "KeyStatementRefused",
		Message: "key statement refused (" + reason + "): " + err.Error(),
	}
	if j.cut[n.UID] {
		event.Reason, event.Message = "LanesCut", "lanes to this node cut: "+err.Error()
	}
	j.log.Warn("node refused", "node", n.Name, "reason", reason, "error", err)
	j.events.Event(ctx, event)
	j.mu.Lock()
	defer j.mu.Unlock()
	j.refusals = status.Count(j.refusals, status.Refusal{Node: n.Name, Reason: reason, Message: err.Error(), Last: j.clock()})
}

// refusedSoFar lists the refusals since the daemon started, by node and reason.
func (j *judge) refusedSoFar() []status.Refusal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.refusals)
}

// alarmsSoFar lists what was accepted with an alarm since then.
func (j *judge) alarmsSoFar() []status.Refusal {
	j.mu.Lock()
	defer j.mu.Unlock()
	return slices.Clone(j.alarms)
}
