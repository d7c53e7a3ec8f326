// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package report

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/network"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/renewal"
)

const (
	// lookPeriod is how often the agent looks whether what it has reported is
	// still true; looking asks nobody.
	lookPeriod = time.Second
	// reportPause spaces reports, but for the first with another bundle.
	reportPause = 5 * time.Second
	// reportResync is how often a report is compared with what the API server has.
	reportResync = 10 * time.Minute
	// overdueShare of a certificate's life: renewal is due at 0.7 of it at the latest.
	overdueShare = 0.8
	// maxIssuer is how much of an issuer's name the API takes.
	maxIssuer = 512
)

// StatusPublisher is where reports go. *cluster.Client is one.
type StatusPublisher interface {
	PublishStatus(ctx context.Context, node string, s v1alpha1.NodeKeyStatus) error
}

// Finding is what the status of a NodeKey is made from.
type Finding struct {
	ready       bool
	problems    []string
	plaintext   bool
	generation  uint64
	peers       int // accepted
	nodes       int // all but this one
	refused     []status.Refusal
	bundle      string // hash of the bundle that the verifier uses
	certificate *keymgr.CertificateInfo
	statement   uint64 // sequence number of the newest one
}

// NodeKey reports in the status of this node's NodeKey what the node has found.
// Each report wakes every watcher of NodeKeys, hence every node, so reports are
// spread over time: see delay.
type NodeKey struct {
	node  keymgr.NodeID
	find  func() Finding
	to    StatusPublisher
	log   *slog.Logger
	clock func() time.Time

	last      *v1alpha1.NodeKeyStatus // reported; nil: nothing so far
	statement uint64                  // that carried it
	reported  time.Time
	differs   time.Time // since when last is not true any more; zero: it is
}

// NewNodeKey returns a reporter that has reported nothing.
func NewNodeKey(node keymgr.NodeID, find func() Finding, to StatusPublisher, log *slog.Logger) *NodeKey {
	return &NodeKey{node: node, find: find, to: to, log: log, clock: time.Now}
}

// Run reports until ctx ends.
func (n *NodeKey) Run(ctx context.Context) error {
	tick := time.NewTicker(lookPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
		n.look(ctx)
	}
}

// look reports what has changed, if its time has come.
func (n *NodeKey) look(ctx context.Context) {
	f, now := n.find(), n.clock()
	if f.statement == 0 {
		return // there is no NodeKey yet
	}
	next := nodeKeyStatus(f, now)
	same := n.last != nil && equality.Semantic.DeepEqual(timeless(*n.last), timeless(next))
	if same && f.statement == n.statement && now.Sub(n.reported) < reportResync {
		n.differs = time.Time{}
		return
	}
	if n.differs.IsZero() {
		n.differs = now
	}
	if now.Before(n.due(f, next)) {
		return
	}
	n.reported = now
	err := n.to.PublishStatus(ctx, n.node.Name, next)
	if err == nil {
		n.last, n.statement, n.differs = &next, f.statement, time.Time{}
		return
	}
	if ctx.Err() == nil && !errors.Is(err, kube.ErrNotFound) {
		n.log.Warn("NodeKey status not updated; trying again", "error", err)
	}
}

// due returns when a difference is to be reported.
func (n *NodeKey) due(f Finding, next v1alpha1.NodeKeyStatus) time.Time {
	at := n.differs.Add(n.delay(f, next))
	if n.last != nil && n.last.BundleHash != next.BundleHash {
		return at // a change of roots waits for it
	}
	if pause := n.reported.Add(reportPause); pause.After(at) {
		return pause
	}
	return at
}

// delay spreads over the nodes what all of them may notice at the same moment: a
// new bundle over N/5 seconds, and counts, which change with every node that
// comes, over N seconds. With 5,000 nodes and watchers a report each second is
// 15 MB/s for the API server.
func (n *NodeKey) delay(f Finding, next v1alpha1.NodeKeyStatus) time.Duration {
	if n.last == nil {
		return 0
	}
	old := timeless(*n.last)
	old.AcceptedPeers, old.Refused = next.AcceptedPeers, timeless(next).Refused
	span := time.Duration(f.nodes) * time.Second
	if !equality.Semantic.DeepEqual(old, timeless(next)) {
		span /= 5
	}
	return renewal.Draw(n.node.UID+next.BundleHash, span)
}

// timeless leaves out what is no change by itself.
func timeless(s v1alpha1.NodeKeyStatus) v1alpha1.NodeKeyStatus {
	out := *s.DeepCopy()
	for i := range out.Conditions {
		out.Conditions[i].LastTransitionTime = metav1.Time{}
	}
	return out
}

// nodeKeyStatus puts a Finding into the words of the API.
func nodeKeyStatus(f Finding, now time.Time) v1alpha1.NodeKeyStatus {
	s := v1alpha1.NodeKeyStatus{
		Lane: v1alpha1.LaneWireGuard, Generation: int64(f.generation), AcceptedPeers: int32(f.peers),
		BundleHash: f.bundle, Conditions: conditions(f, now),
	}
	if f.plaintext {
		s.Lane = v1alpha1.LaneVXLAN
	}
	if c := f.certificate; c != nil {
		s.Certificate = &v1alpha1.CertificateStatus{
			Serial: c.Serial, Issuer: strings.ToValidUTF8(c.Issuer[:min(len(c.Issuer), maxIssuer)], ""), NotBefore: metav1.NewTime(c.NotBefore), NotAfter: metav1.NewTime(c.NotAfter),
		}
	}
	for _, r := range f.refused {
		s.Refused = append(s.Refused, v1alpha1.RefusedStatement{
			Node: r.Node, Reason: r.Reason, Count: int64(r.Count), LastTime: metav1.NewTime(r.Last),
		})
	}
	return s
}

func conditions(f Finding, now time.Time) []metav1.Condition {
	ready := condition(v1alpha1.ConditionReady, f.ready && len(f.problems) == 0, "Serving", "Problem")
	if ready.Message = strings.Join(f.problems, "; "); !f.ready {
		ready.Reason = "NotReady"
	}
	if f.ready { // pods are served; what is wrong meanwhile is told
		ready.Status = metav1.ConditionTrue
	}
	certified := condition(v1alpha1.ConditionCertified, false, "Certified", "NoCertificate")
	if c := f.certificate; c != nil {
		overdue := c.NotBefore.Add(time.Duration(overdueShare * float64(c.NotAfter.Sub(c.NotBefore))))
		switch {
		case now.After(c.NotAfter):
			certified.Reason = "Expired"
		case now.After(overdue):
			certified.Reason = "RenewalOverdue"
		default:
			certified = condition(v1alpha1.ConditionCertified, true, "Certified", "")
		}
	}
	encrypted := condition(v1alpha1.ConditionEncrypted, !f.plaintext, "WireGuard", "Plaintext")
	return []metav1.Condition{ready, certified, encrypted}
}

func condition(kind string, holds bool, yes, no string) metav1.Condition {
	c := metav1.Condition{Type: kind, Status: metav1.ConditionFalse, Reason: no, LastTransitionTime: metav1.Now()}
	if holds {
		c.Status, c.Reason = metav1.ConditionTrue, yes
	}
	return c
}

// NodeKeyFinding returns what this node knows of itself; it asks neither kernel nor
// API server.
func NodeKeyFinding(state *readiness.State, keys *network.Keys, v *network.View) Finding {
	f := Finding{ready: state.Ready(), problems: state.Reasons()}
	if v != nil {
		f.nodes = len(v.Peers)
		for _, p := range v.Peers {
			if len(p.Peer.Keys) > 0 {
				f.peers++
			}
		}
	}
	facts := keys.Trust.Facts()
	f.refused, f.bundle, f.certificate = facts.Refused, facts.BundleHash, facts.Certificate
	if facts.Key != nil {
		f.generation = facts.Key.Generation
	}
	if facts.Statement != nil {
		f.statement = facts.Statement.Seq
	}
	return f
}
