// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
)

// agentDaemonSet is the DaemonSet whose pods may ask for certificates.
const agentDaemonSet = "sealane-agent"

// Reasons of Events and conditions.
const (
	reasonApproved = "AgentVerified"
	reasonDenied   = "CertificateDenied"
	reasonIssued   = "CertificateIssued"
	reasonAddress  = "NodeAddressRefused"
)

// handle denies a pending request, or approves and issues it, or issues it if it
// was approved before. It judges the request again before it issues, on facts
// read for that step, so that neither a restart in between nor an approval by
// somebody else makes it sign what it would not approve. It returns the request
// as it stands then. The first judgement adds the node's key to held.
func (s *Signer) handle(ctx context.Context, r kube.Request, held holdings) (kube.Request, error) {
	order, err := s.judge(ctx, r, held)
	if err == nil && !r.Approved {
		// Issue at once, without waiting for the watch to show the approval: when
		// many nodes ask, the agent would give up first, for each of its requests.
		if err = s.CSRs.ApproveRequest(ctx, r, kube.Verdict{
			Reason: reasonApproved, Message: "the request comes from the live agent pod of node " + order.Node().Name,
		}); err != nil {
			return r, err
		}
		r.Approved = true
		order, err = s.judge(ctx, r, held)
	}
	if denial, ok := errors.AsType[*approval.Denial](err); ok {
		return s.refuse(ctx, r, denial)
	}
	if err != nil {
		return r, fmt.Errorf("judge certificate request %s: %w", r.Name, err)
	}
	return s.issue(ctx, r, order)
}

func (s *Signer) issue(ctx context.Context, r kube.Request, order approval.Order) (kube.Request, error) {
	chain, err := s.Issuer.Issue(ctx, order)
	if err != nil {
		return r, err
	}
	// Count the certificate before handing it out: if the answer gets lost, the
	// count is one too high, never one too low.
	s.history.add(order.Node().UID, r.UID, s.Clock())
	if err := s.CSRs.AnswerRequest(ctx, r, chain); err != nil {
		return r, err
	}
	r.Certificate = keymgr.EncodeChain(chain)
	s.Metrics.issued.Inc()
	info, err := keymgr.ParseCertificateInfo(chain[0])
	if err != nil {
		return r, err
	}
	s.Log.Info("certificate issued", keyNode, order.Node().Name, keyRequest, r.Name, keySerial, info.Serial, keyUntil, info.NotAfter)
	s.Events.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: order.Node().Name, UID: order.Node().UID, Type: kube.EventNormal, Reason: reasonIssued,
		Message: fmt.Sprintf("node certificate %s issued, valid until %s", info.Serial, info.NotAfter.UTC().Format(time.RFC3339)),
	})
	s.reportAddresses(ctx, order)
	return r, nil
}

// reportAddresses tells the operator which addresses of a Node its new certificate does
// not name.
func (s *Signer) reportAddresses(ctx context.Context, order approval.Order) {
	var all []string
	for _, refused := range order.RefusedAddresses() {
		all = append(all, refused.Reason)
		s.Metrics.addresses.Inc()
	}
	if len(all) == 0 {
		return
	}
	text := strings.Join(all, "; ")
	s.Log.Warn("node addresses not certified", keyNode, order.Node().Name, keyReason, text)
	s.Events.Event(ctx, kube.EventSpec{
		Kind: kube.KindNode, Name: order.Node().Name, UID: order.Node().UID, Type: kube.EventWarning, Reason: reasonAddress,
		Message: "the node certificate leaves out addresses: " + text,
	})
}

// refuse tells the agent, by the request's condition, and the operator, by an
// Event.
func (s *Signer) refuse(ctx context.Context, r kube.Request, d *approval.Denial) (kube.Request, error) {
	r, err := s.record(ctx, r, d)
	if err != nil {
		return r, err
	}
	s.Log.Warn("certificate request denied", keyRequest, r.Name, keyReason, d.Reason, keyError, d.Message)
	s.Events.Event(ctx, refusalEvent(r, d))
	return r, nil
}

// record writes a refusal into the request. An approved request can no longer be
// denied, so it fails.
func (s *Signer) record(ctx context.Context, r kube.Request, d *approval.Denial) (kube.Request, error) {
	verdict := kube.Verdict{Reason: string(d.Reason), Message: d.Message}
	write, after := s.CSRs.DenyRequest, r
	after.Denied = true
	if r.Approved {
		write, after = s.CSRs.FailRequest, r
		after.Failed = true
	}
	if err := write(ctx, r, verdict); err != nil {
		return r, err
	}
	s.Metrics.denied.WithLabelValues(string(d.Reason)).Inc()
	return after, nil
}

// refusalEvent returns the Event of a refusal. It is about the node that the
// request comes from, where operators look, if the API server vouches for one.
func refusalEvent(r kube.Request, d *approval.Denial) kube.EventSpec {
	e := kube.EventSpec{
		Kind: kube.KindRequest, Name: r.Name, UID: r.UID, Type: kube.EventWarning, Reason: reasonDenied,
		Message: fmt.Sprintf("certificate request %s by %s: %s: %s", r.Name, r.Username, d.Reason, d.Message),
	}
	if claims, err := approval.ReadClaims(caRequest(r)); err == nil {
		e.Kind, e.Name, e.UID = kube.KindNode, claims.Node.Name, claims.Node.UID
	}
	return e
}

// judge reads the facts for a request and lets approval.Approve decide. From then on,
// the key of an approved request belongs to its node.
func (s *Signer) judge(ctx context.Context, r kube.Request, held holdings) (approval.Order, error) {
	order, err := s.examine(ctx, r, held)
	if err != nil {
		return approval.Order{}, err
	}
	return order, held.claim(order)
}

func (s *Signer) examine(ctx context.Context, r kube.Request, held holdings) (approval.Order, error) {
	request, policy := caRequest(r), s.Policy
	revoked, known := s.Revocations.Current()
	if !known {
		return approval.Order{}, ErrRevocationsUnknown
	}
	policy.Rules.APIServer = held.apiServer
	facts := approval.Facts{Now: s.Clock(), KeyOwners: held.keys, Claims: held.addresses, Revoked: revoked}
	claims, err := approval.ReadClaims(request)
	if err != nil {
		return approval.Approve(request, policy, facts) // which knows the check that comes first
	}
	if policy.DaemonSetUID, err = s.Live.DaemonSetUID(ctx, agentDaemonSet); err != nil && !errors.Is(err, kube.ErrNotFound) {
		return approval.Order{}, err
	}
	if facts.Node, err = s.liveNode(ctx, claims.Node.Name); err != nil {
		return approval.Order{}, err
	}
	if facts.Pod, err = s.livePod(ctx, claims.PodName); err != nil {
		return approval.Order{}, err
	}
	facts.Issued = s.history.times(claims.Node.UID, r.UID)
	return approval.Approve(request, policy, facts)
}

func (s *Signer) liveNode(ctx context.Context, name string) (*keymgr.LiveNode, error) {
	node, err := s.Live.Node(ctx, name)
	if errors.Is(err, kube.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	live := node.Live()
	return &live, nil
}

func (s *Signer) livePod(ctx context.Context, name string) (*approval.Pod, error) {
	live, err := s.Live.Pod(ctx, s.Policy.Namespace, name)
	if errors.Is(err, kube.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return &approval.Pod{
		Name: live.Name, UID: live.UID, NodeName: live.Node, ServiceAccount: live.ServiceAccount,
		Deleting: live.Deleting, ControllerKind: live.ControllerKind, ControllerUID: live.ControllerUID,
	}, nil
}

func caRequest(r kube.Request) approval.Request {
	return approval.Request{
		SignerName: r.Signer, Username: r.Username, Extra: r.Extra, CSR: r.CSR, Usages: r.Usages, Expiration: r.Validity,
	}
}
