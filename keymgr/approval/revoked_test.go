// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package approval_test

import (
	"errors"
	"testing"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/keytest"
)

func TestApproveDeniesTheRevoked(t *testing.T) {
	for name, tc := range map[string]struct {
		entry func(a *application) keymgr.RevokedNode
		want  approval.Reason
	}{
		"node": {func(a *application) keymgr.RevokedNode {
			return keymgr.RevokedNode{Name: "a", UID: keytest.ID("a").UID, Blocked: true, Reason: keymgr.ReasonKeyCompromise}
		}, approval.ReasonNodeRevoked},
		"key": {func(a *application) keymgr.RevokedNode {
			return keymgr.RevokedNode{Name: "a", UID: keytest.ID("a").UID, Keys: []keymgr.Hash{a.hash()}}
		}, approval.ReasonKeyRevoked},
		"key of another node": {func(a *application) keymgr.RevokedNode {
			return keymgr.RevokedNode{Name: "b", UID: "u-b", Blocked: true, Keys: []keymgr.Hash{{1}, a.hash()}}
		}, approval.ReasonKeyRevoked},
		"readmitted": {func(a *application) keymgr.RevokedNode {
			return keymgr.RevokedNode{Name: "a", UID: keytest.ID("a").UID, Keys: []keymgr.Hash{{1}}}
		}, ""},
		"earlier life": {func(a *application) keymgr.RevokedNode {
			return keymgr.RevokedNode{Name: "a", UID: "earlier", Blocked: true}
		}, ""},
	} {
		a := newApplication(t)
		a.sign()
		a.facts.Revoked.Nodes = []keymgr.RevokedNode{tc.entry(a)}
		_, err := approval.Approve(a.request, a.policy, a.facts)
		var got approval.Reason
		if denial, ok := errors.AsType[*approval.Denial](err); ok {
			got = denial.Reason
		}
		if got != tc.want || (err == nil) != (tc.want == "") {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
