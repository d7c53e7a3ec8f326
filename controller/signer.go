// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
)

// Facts reads what the API server has now, not what a cache had a moment ago.
type Facts interface {
	Node(ctx context.Context, name string) (kube.Node, error)
	Pod(ctx context.Context, namespace, name string) (kube.Pod, error)
	DaemonSetUID(ctx context.Context, name string) (string, error)
}

// Desk takes the decisions on requests. Each applies only to the very request
// that was judged.
type Desk interface {
	ApproveRequest(ctx context.Context, r kube.Request, v kube.Verdict) error
	DenyRequest(ctx context.Context, r kube.Request, v kube.Verdict) error
	FailRequest(ctx context.Context, r kube.Request, v kube.Verdict) error
	AnswerRequest(ctx context.Context, r kube.Request, chain [][]byte) error
}

// Reporter tells operators.
type Reporter interface {
	Event(ctx context.Context, e kube.EventSpec)
}

// Reasons of Events and conditions.
const (
	reasonApproved = "AgentVerified"
	reasonDenied   = "CertificateDenied"
	reasonIssued   = "CertificateIssued"
)

// signer decides on one request at a time.
type signer struct {
	facts   Facts
	desk    Desk
	report  Reporter
	issuer  ca.Issuer
	policy  ca.Policy // without the DaemonSet's UID
	history *history
	revoked *register
	metrics *metrics
	log     *slog.Logger
	clock   func() time.Time
}

// handle decides on a pending request: denied, or approved and issued, or issued
// if it was approved before. It judges anew before it issues, on facts read for
// that step, so neither a restart in between nor somebody else's approval makes
// it sign what it would not approve. It returns the request as it stands then. A
// node's key becomes known to owners with the first step.
func (s *signer) handle(ctx context.Context, r kube.Request, owners owners) (kube.Request, error) {
	order, err := s.judge(ctx, r, owners)
	if err == nil && !r.Approved {
		// Issuing at once, not when the approval comes back as news: in a crowd
		// the agent would have given up by then, for each request anew.
		if err = s.desk.ApproveRequest(ctx, r, kube.Verdict{
			Reason: reasonApproved, Message: "the request comes from the live agent pod of node " + order.Node().Name,
		}); err != nil {
			return r, err
		}
		r.Approved = true
		order, err = s.judge(ctx, r, owners)
	}
	if denial, ok := errors.AsType[*ca.Denial](err); ok {
		return s.refuse(ctx, r, denial)
	}
	if err != nil {
		return r, fmt.Errorf("judge certificate request %s: %w", r.Name, err)
	}
	return s.issue(ctx, r, order)
}

func (s *signer) issue(ctx context.Context, r kube.Request, order ca.Order) (kube.Request, error) {
	chain, err := s.issuer.Issue(ctx, order)
	if err != nil {
		return r, err
	}
	// Counted before it is handed out: after an answer that got lost, one
	// certificate too many is counted, never one too few.
	s.history.add(order.Node().UID, r.UID, s.clock())
	if err := s.desk.AnswerRequest(ctx, r, chain); err != nil {
		return r, err
	}
	r.Certificate = keymgr.EncodeChain(chain)
	s.metrics.issued.Inc()
	info, err := keymgr.ParseCertificateInfo(chain[0])
	if err != nil {
		return r, err
	}
	s.log.Info("certificate issued", keyNode, order.Node().Name, keyRequest, r.Name, keySerial, info.Serial, keyUntil, info.NotAfter)
	s.report.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: order.Node().Name, UID: order.Node().UID, Type: kube.EventNormal, Reason: reasonIssued,
		Message: fmt.Sprintf("node certificate %s issued, valid until %s", info.Serial, info.NotAfter.UTC().Format(time.RFC3339)),
	})
	return r, nil
}

// refuse tells the agent by the request's condition and the operator by an
// Event.
func (s *signer) refuse(ctx context.Context, r kube.Request, d *ca.Denial) (kube.Request, error) {
	r, err := s.record(ctx, r, d)
	if err != nil {
		return r, err
	}
	s.log.Warn("certificate request denied", keyRequest, r.Name, keyReason, d.Reason, keyError, d.Message)
	s.report.Event(ctx, aboutRefusal(r, d))
	return r, nil
}

// record writes a refusal into the request. One that is approved can no longer be
// denied, only fail.
func (s *signer) record(ctx context.Context, r kube.Request, d *ca.Denial) (kube.Request, error) {
	verdict := kube.Verdict{Reason: string(d.Reason), Message: d.Message}
	write, after := s.desk.DenyRequest, r
	after.Denied = true
	if r.Approved {
		write, after = s.desk.FailRequest, r
		after.Failed = true
	}
	if err := write(ctx, r, verdict); err != nil {
		return r, err
	}
	s.metrics.denied.WithLabelValues(string(d.Reason)).Inc()
	return after, nil
}

// aboutRefusal puts the Event where an operator looks: on the node that the
// request comes from, if the API server vouches for one.
func aboutRefusal(r kube.Request, d *ca.Denial) kube.EventSpec {
	e := kube.EventSpec{
		Kind: kube.KindRequest, Name: r.Name, UID: r.UID, Type: kube.EventWarning, Reason: reasonDenied,
		Message: fmt.Sprintf("certificate request %s by %s: %s: %s", r.Name, r.Username, d.Reason, d.Message),
	}
	if claims, err := ca.ReadClaims(asked(r)); err == nil {
		e.Kind, e.Name, e.UID = kube.KindNode, claims.Node.Name, claims.Node.UID
	}
	return e
}

// judge reads the facts for a request and lets ca.Approve decide. The key of what
// it approves is its node's from then on.
func (s *signer) judge(ctx context.Context, r kube.Request, owners owners) (ca.Order, error) {
	order, err := s.examine(ctx, r, owners)
	if err != nil {
		return ca.Order{}, err
	}
	return order, owners.claim(order)
}

func (s *signer) examine(ctx context.Context, r kube.Request, owners owners) (ca.Order, error) {
	request, policy := asked(r), s.policy
	revoked, known := s.revoked.current()
	if !known {
		return ca.Order{}, errNoRegister
	}
	facts := ca.Facts{Now: s.clock(), KeyOwners: owners, Revoked: revoked}
	claims, err := ca.ReadClaims(request)
	if err != nil {
		return ca.Approve(request, policy, facts) // it knows which check comes first
	}
	if policy.DaemonSetUID, err = s.facts.DaemonSetUID(ctx, AgentDaemonSet); err != nil && !errors.Is(err, kube.ErrNotFound) {
		return ca.Order{}, err
	}
	if facts.Node, err = s.node(ctx, claims.Node.Name); err != nil {
		return ca.Order{}, err
	}
	if facts.Pod, err = s.pod(ctx, claims.PodName); err != nil {
		return ca.Order{}, err
	}
	facts.Issued = s.history.times(claims.Node.UID, r.UID)
	return ca.Approve(request, policy, facts)
}

func (s *signer) node(ctx context.Context, name string) (*ca.Node, error) {
	live, err := s.facts.Node(ctx, name)
	if errors.Is(err, kube.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &ca.Node{ID: keymgr.NodeID{Name: live.Name, UID: live.UID}, PodCIDRs: live.PodCIDRs}, nil
}

func (s *signer) pod(ctx context.Context, name string) (*ca.Pod, error) {
	live, err := s.facts.Pod(ctx, s.policy.Namespace, name)
	if errors.Is(err, kube.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &ca.Pod{
		Name: live.Name, UID: live.UID, NodeName: live.Node, ServiceAccount: live.ServiceAccount,
		Deleting: live.Deleting, ControllerKind: live.ControllerKind, ControllerUID: live.ControllerUID,
	}, nil
}

func asked(r kube.Request) ca.Request {
	return ca.Request{
		SignerName: r.Signer, Username: r.Username, Extra: r.Extra, CSR: r.CSR, Usages: r.Usages, Expiration: r.Validity,
	}
}

// owners says which node has which public key, by the key's hash.
type owners map[[32]byte]keymgr.NodeID

// claim gives an approved key to its node, so that the next request in the same
// pass cannot have it too.
func (o owners) claim(order ca.Order) error {
	der, err := x509.MarshalPKIXPublicKey(order.PublicKey())
	if err != nil {
		return fmt.Errorf("encode public key of node %s: %w", order.Node(), err)
	}
	o[sha256.Sum256(der)] = order.Node()
	return nil
}
