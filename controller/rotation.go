// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"bytes"
	"context"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
)

// fleet is what a change of roots goes by, as a snapshot has it. A NodeKey whose
// node is gone, or was made anew, holds nothing up: it is about to be removed.
func fleet(s kube.Snapshot) ca.Fleet {
	var f ca.Fleet
	for _, node := range s.Nodes {
		if s.Claims[node.Name] != node.UID {
			continue
		}
		f.Nodes = append(f.Nodes, ca.NodeReport{
			Name: node.Name, Ready: node.Ready, BundleHash: s.Reports[node.Name], Chain: s.NodeKeys[node.Name].Chain,
		})
	}
	return f
}

// advance takes a change of roots further. What comes of it is published by the
// same pass, or by the next leader's.
func (w *worker) advance(ctx context.Context, s kube.Snapshot) error {
	f := fleet(s)
	f.Request = w.request(s.Trust.Request)
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	moved, err := w.authority.Advance(ctx, f)
	if err != nil {
		return err
	}
	status, err := w.authority.Status()
	if err != nil {
		return err
	}
	waits := status.Stage.Waits(f.Nodes, w.clock())
	w.metrics.rotation(status, len(waits))
	if moved {
		w.log.Info("change of roots", keyPhase, status.Stage.Phase, keySerial, status.Root.Serial, keyUntil, status.Root.NotAfter)
	}
	return nil
}

// request reads when somebody asked for a new root. What cannot be read is told
// once and asks for nothing.
func (w *worker) request(text string) time.Time {
	if text == "" {
		return time.Time{}
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil && text != w.badRequest {
		w.log.Warn("annotation is no time (RFC 3339) and is ignored", keyAnnotation, kube.RotateRootAnnotation, keyError, err)
	}
	if w.badRequest = ""; err != nil {
		w.badRequest = text
	}
	return t
}

// publish keeps what is published equal to the authority's, whoever changed it.
func (w *worker) publish(ctx context.Context, s kube.Snapshot) error {
	want, err := w.trust()
	if err != nil {
		return err
	}
	have := s.Trust
	if bytes.Equal(bytes.TrimSpace(want.Bundle), s.Bundle) && bytes.Equal(want.Renewal, have.Renewal) && bytes.Equal(want.Authority, have.Authority) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, callTimeout)
	defer cancel()
	return w.publisher.PublishTrust(ctx, want)
}

func (w *worker) trust() (kube.Trust, error) {
	t := kube.Trust{Bundle: w.authority.Bundle()}
	status, err := w.authority.Status()
	if err != nil {
		return t, err
	}
	if status.Window != nil {
		if t.Renewal, err = status.Window.Encode(); err != nil {
			return t, err
		}
	}
	t.Authority, err = status.Account(string(w.mode)).Encode()
	return t, err
}
