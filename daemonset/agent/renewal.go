// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
)

// needsCertificate returns why a certificate should be asked for now, "" if none,
// and how long nobody need look again.
func (t *trust) needsCertificate(w *wanted) (why string, rest time.Duration) {
	if why := t.identity.NeedsCertificate(w.self.PodCIDRs); why != "" {
		return why, 0
	}
	var window *keymgr.Window
	if len(w.window) > 0 {
		parsed, err := keymgr.ParseWindow(w.window)
		if err != nil {
			t.log.Warn("renewal window is ignored", "error", err)
		} else {
			window = &parsed
		}
	}
	now := t.clock()
	why, at := t.identity.NeedsRoot(w.bundle, window)
	if why == keymgr.NeedTrusted {
		at = t.spread(w, now)
	} else {
		t.distrusted = time.Time{}
	}
	switch {
	case why == "":
		return "", identityCheck
	case now.Before(at):
		return "", min(identityCheck, at.Sub(now))
	}
	return why, 0
}

// spread picks a moment for what every node may find out at once, that its
// certificate leads to no root any more.
func (t *trust) spread(w *wanted, now time.Time) time.Time {
	if t.distrusted.IsZero() {
		t.distrusted = now
	}
	span := keymgr.Span(w.nodes)
	if span == keymgr.Span(1) {
		return now // a few
	}
	return t.distrusted.Add(keymgr.Draw(t.identity.Node().UID, span))
}

// alarm tells of a node whose certificate key changed without the word of the one
// before: once, for the next look at the same statement finds nothing new.
func (j *judge) alarm(ctx context.Context, n kube.Node, peer keymgr.Peer) {
	for _, w := range peer.Warnings {
		if w.Code != keymgr.WarnContinuity {
			continue
		}
		j.log.Error("certificate key changed without continuity", "node", n.Name, "serial", peer.Certificate.Serial, "warning", w.Text)
		j.events.Event(ctx, kube.EventSpec{
			Kind: kube.KindNode, Name: n.Name, UID: n.UID, Type: kube.EventWarning, Reason: "ContinuityBroken", Message: w.Text,
		})
		j.mu.Lock()
		j.alarms = status.Count(j.alarms, status.Refusal{Node: n.Name, Reason: w.Code, Message: w.Text, Last: j.clock()})
		j.mu.Unlock()
	}
}
