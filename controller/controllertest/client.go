// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controllertest

import (
	"bytes"
	"context"
	"slices"
	"strconv"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
)

// Node implements a live read.
func (w *World) Node(_ context.Context, name string) (kube.Node, error) {
	return lookUp(w, w.Nodes, name)
}

// Pod implements a live read.
func (w *World) Pod(_ context.Context, _, name string) (kube.Pod, error) {
	return lookUp(w, w.Pods, name)
}

// DaemonSetUID implements a live read.
func (w *World) DaemonSetUID(_ context.Context, name string) (string, error) {
	return lookUp(w, map[string]string{agentDaemonSet: w.DaemonSet}, name)
}

func lookUp[T any](w *World, in map[string]T, name string) (out T, err error) {
	if err := w.failing(); err != nil {
		return out, err
	}
	found, ok := in[name]
	if !ok {
		return out, kube.ErrNotFound
	}
	return found, nil
}

func (w *World) decide(r kube.Request, v kube.Verdict, change func(*kube.Request)) error {
	if err := w.failing(); err != nil {
		return err
	}
	w.Writes++
	change(w.Request(r.Name))
	w.Verdicts[r.Name] = v
	return nil
}

// ApproveRequest marks a request as approved.
func (w *World) ApproveRequest(_ context.Context, r kube.Request, v kube.Verdict) error {
	return w.decide(r, v, func(r *kube.Request) { r.Approved = true })
}

// DenyRequest marks a request as denied.
func (w *World) DenyRequest(_ context.Context, r kube.Request, v kube.Verdict) error {
	return w.decide(r, v, func(r *kube.Request) { r.Denied = true })
}

// FailRequest marks a request as failed.
func (w *World) FailRequest(_ context.Context, r kube.Request, v kube.Verdict) error {
	return w.decide(r, v, func(r *kube.Request) { r.Failed = true })
}

// AnswerRequest stores the certificate of an approved request.
func (w *World) AnswerRequest(_ context.Context, r kube.Request, chain [][]byte) error {
	if !w.Request(r.Name).Approved {
		return kube.ErrNotApproved
	}
	return w.decide(r, w.Verdicts[r.Name], func(r *kube.Request) { r.Certificate = keymgr.EncodeChain(chain) })
}

// Event records an Event.
func (w *World) Event(_ context.Context, e kube.EventSpec) { w.Events = append(w.Events, e) }

// DeleteNodeKey removes a node's NodeKey if it belongs to the given UID.
func (w *World) DeleteNodeKey(_ context.Context, name, nodeUID string) error {
	if err := w.failing(); err != nil {
		return err
	}
	if w.Claims[name] == nodeUID {
		delete(w.Claims, name)
		delete(w.NodeKeys, name)
	}
	return nil
}

// PublishTrust stores the trust bundle.
func (w *World) PublishTrust(_ context.Context, t cluster.Trust) error {
	if err := w.failing(); err != nil {
		return err
	}
	w.Writes++
	w.Bundle = slices.Clone(t.Bundle)
	t.Bundle, t.Request = nil, w.Trust.Request
	w.Trust = t
	return nil
}

// PublishRecord stores the revocation record if the version matches.
func (w *World) PublishRecord(_ context.Context, r cluster.RevocationRecord) (cluster.RevocationRecord, error) {
	if err := w.failing(); err != nil {
		return cluster.RevocationRecord{}, err
	}
	if r.Version != w.Record.Version {
		return cluster.RevocationRecord{}, kube.ErrConflict
	}
	w.Writes++
	r.Version = "v" + strconv.Itoa(w.Writes)
	w.Record = r
	return r, nil
}

// ReportRevocation stores the status of an order.
func (w *World) ReportRevocation(_ context.Context, r cluster.Revocation) error {
	if err := w.failing(); err != nil {
		return err
	}
	i := slices.IndexFunc(w.Orders, func(o cluster.Revocation) bool { return o.Name == r.Name })
	if i < 0 {
		return kube.ErrNotFound
	}
	w.Writes++
	w.Orders[i].Status = r.Status
	return nil
}

// Changed returns the channel News.
func (w *World) Changed() <-chan struct{} { return w.News }

// Requests returns all requests.
func (w *World) Requests() ([]kube.Request, bool) { return slices.Clone(w.AllRequests), !w.isListing() }

// Snapshot returns everything else.
func (w *World) Snapshot() (cluster.Snapshot, bool) {
	s := cluster.Snapshot{
		NodeKeys: w.NodeKeys, Claims: w.Claims, Reports: w.Reports, Trust: w.Trust, Bundle: bytes.TrimSpace(w.Bundle),
		Revoked: w.Record, Orders: slices.Clone(w.Orders), APIServer: w.APIServer,
	}
	for _, node := range w.Nodes {
		s.Nodes = append(s.Nodes, node)
	}
	return s, !w.isListing()
}
