// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package report

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

type published struct {
	all []v1alpha1.NodeKeyStatus
	err error
}

func (p *published) PublishStatus(_ context.Context, _ string, s v1alpha1.NodeKeyStatus) error {
	if p.err == nil {
		p.all = append(p.all, s)
	}
	return p.err
}

// stand is a reporter whose world is changed by hand.
type stand struct {
	*NodeKey
	now time.Time
	f   Finding
	out published
}

func newStand(nodes int) *stand {
	s := &stand{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
	s.f = Finding{
		ready: true, nodes: nodes, peers: nodes, generation: 7, statement: 1, bundle: "aa",
		certificate: &keymgr.CertificateInfo{Serial: "1", NotBefore: s.now.Add(-time.Hour), NotAfter: s.now.Add(9 * time.Hour)},
	}
	s.NodeKey = &NodeKey{
		node: keymgr.NodeID{Name: "n1", UID: "u1"}, find: func() Finding { return s.f }, to: &s.out,
		log: slog.New(slog.DiscardHandler), clock: func() time.Time { return s.now },
	}
	return s
}

// after lets time pass, a second at a time, and returns how many reports came.
func (s *stand) after(t *testing.T, d time.Duration) int {
	t.Helper()
	before := len(s.out.all)
	for end := s.now.Add(d); s.now.Before(end); {
		s.now = s.now.Add(time.Second)
		s.look(t.Context())
	}
	return len(s.out.all) - before
}

func (s *stand) latest() v1alpha1.NodeKeyStatus { return s.out.all[len(s.out.all)-1] }

func TestAnnounceOnChange(t *testing.T) {
	s := newStand(3)
	s.f.statement = 0
	if n := s.after(t, 5*time.Second); n != 0 {
		t.Errorf("%d reports without a NodeKey to report in", n)
	}
	s.f.statement = 1
	if n := s.after(t, time.Minute); n != 1 {
		t.Fatalf("%d reports, want 1", n)
	}
	got := s.latest()
	if got.BundleHash != "aa" || got.AcceptedPeers != 3 || got.Generation != 7 || got.Lane != v1alpha1.LaneWireGuard || got.Certificate.Serial != "1" {
		t.Errorf("reported %+v", got)
	}
	for _, kind := range []string{v1alpha1.ConditionReady, v1alpha1.ConditionCertified, v1alpha1.ConditionEncrypted} {
		if !meta.IsStatusConditionTrue(got.Conditions, kind) {
			t.Errorf("%s is not true: %+v", kind, got.Conditions)
		}
	}
	s.f.peers = 2
	if n := s.after(t, time.Minute); n != 1 || s.latest().AcceptedPeers != 2 {
		t.Errorf("%d reports of a lost peer, want 1", n)
	}
	if n := s.after(t, time.Hour); n > 6 {
		t.Errorf("%d comparisons within a quiet hour, want 6 at most", n)
	}
	s.f.statement = 2 // the object may have been created again
	if n := s.after(t, time.Minute); n != 1 {
		t.Errorf("%d reports after a new statement, want 1", n)
	}
}

// A change of roots waits for the hash, whatever was reported a moment ago.
func TestAnnounceBundleAtOnce(t *testing.T) {
	s := newStand(1)
	s.after(t, 10*time.Second)
	s.f.peers = 0
	for s.latest().AcceptedPeers != 0 {
		s.after(t, time.Second)
	}
	s.f.bundle = "bb"
	if n := s.after(t, 2*time.Second); n != 1 || s.latest().BundleHash != "bb" {
		t.Errorf("%d reports within two seconds", n)
	}
	s.f.peers = 1
	if n := s.after(t, 3*time.Second); n != 0 {
		t.Errorf("%d reports within the pause", n)
	}
}

func TestAnnounceRetries(t *testing.T) {
	for _, fail := range []error{kube.ErrNotFound, errors.New("away")} {
		s := newStand(1)
		s.out.err = fail
		s.after(t, time.Minute)
		s.out.err = nil
		if n := s.after(t, 10*time.Second); n != 1 {
			t.Errorf("%v: %d reports when it works again, want 1", fail, n)
		}
	}
}

// In a large cluster counts wait longest, since all nodes see them change at once.
func TestAnnounceSpreads(t *testing.T) {
	var counts, bundles time.Duration
	for _, uid := range []string{"a", "b", "c", "d", "e", "f", "g", "h"} {
		s := newStand(1000)
		s.node.UID = uid
		s.after(t, 10*time.Second)
		next := nodeKeyStatus(s.f, s.now)
		next.AcceptedPeers++
		counts = max(counts, s.delay(s.f, next))
		next.BundleHash = "bb"
		bundles = max(bundles, s.delay(s.f, next))
	}
	if counts < 400*time.Second || counts > 1000*time.Second || bundles < 60*time.Second || bundles > 200*time.Second {
		t.Errorf("counts wait up to %v, bundles up to %v", counts, bundles)
	}
}

func TestConditions(t *testing.T) {
	s := newStand(1)
	end := s.f.certificate.NotAfter
	for name, tc := range map[string]struct {
		change func(*Finding)
		at     time.Time
		kind   string
		status metav1.ConditionStatus
		reason string
	}{
		"starting":   {func(f *Finding) { f.ready, f.problems = false, []string{"keys: starting"} }, s.now, v1alpha1.ConditionReady, metav1.ConditionFalse, "NotReady"},
		"trouble":    {func(f *Finding) { f.problems = []string{"keys: api server away"} }, s.now, v1alpha1.ConditionReady, metav1.ConditionTrue, "Problem"},
		"none":       {func(f *Finding) { f.certificate = nil }, s.now, v1alpha1.ConditionCertified, metav1.ConditionFalse, "NoCertificate"},
		"overdue":    {func(*Finding) {}, end.Add(-time.Hour), v1alpha1.ConditionCertified, metav1.ConditionFalse, "RenewalOverdue"},
		"expired":    {func(*Finding) {}, end.Add(time.Second), v1alpha1.ConditionCertified, metav1.ConditionFalse, "Expired"},
		"in the raw": {func(f *Finding) { f.plaintext = true }, s.now, v1alpha1.ConditionEncrypted, metav1.ConditionFalse, "Plaintext"},
	} {
		f := s.f
		tc.change(&f)
		got := meta.FindStatusCondition(nodeKeyStatus(f, tc.at).Conditions, tc.kind)
		if got == nil || got.Status != tc.status || got.Reason != tc.reason {
			t.Errorf("%s: %s is %+v, want %s %s", name, tc.kind, got, tc.status, tc.reason)
		}
	}
}
