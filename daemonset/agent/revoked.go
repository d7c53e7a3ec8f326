// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"fmt"
	"sync"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

// docket follows the published revocation list.
type docket struct {
	verifier *keymgr.Verifier

	mu      sync.Mutex // guards all below
	seen    string     // the record that was looked at last
	refused error      // why it was not put into force
	told    bool       // of refused
}

// follow puts what is published into force. What is missing or not acceptable
// leaves the list before in force.
func (d *docket) follow(r kube.RevocationRecord) {
	if len(r.List) == 0 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.seen == string(r.List) && d.refused == nil {
		return
	}
	signed, err := keymgr.DecodeSigned(r.List)
	if err == nil {
		err = d.verifier.SetRevocations(signed)
	}
	if d.seen != string(r.List) {
		d.seen, d.told = string(r.List), false
	}
	d.refused = err
}

// complaint gives why the published list is not in force, once.
func (d *docket) complaint() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.refused == nil || d.told {
		return nil
	}
	d.told = true
	return d.refused
}

// number is that of the list in force, 0 if there is none.
func (d *docket) number() uint64 {
	l, _ := d.verifier.Revocations()
	return l.Number
}

// standing says whether this node's identity is in force. A node that is blocked
// can do nothing but wait; one whose key is revoked makes itself a new identity.
func (t *trust) standing(ctx context.Context) error {
	if err := t.docket.complaint(); err != nil {
		t.warn(ctx, "RevocationListRefused", err)
	}
	node := t.identity.Node()
	why := t.revokedFor()
	t.state.bar(why != "")
	if why != "" {
		return fmt.Errorf("this node is %w: %s; sealane readmit %s brings it back, with a new key", keymgr.ErrRevoked, why, node.Name)
	}
	key, err := t.identity.KeyHash()
	if err != nil {
		return err
	}
	info, _ := t.identity.Certificate()
	info.SPKI = key // also before there is a certificate for it
	reason, revoked := t.verifier.Revoked(node, info)
	if !revoked {
		return nil
	}
	if err := t.identity.Reset(); err != nil {
		return fmt.Errorf("replace revoked key: %w", err)
	}
	t.log.Warn("node key was revoked and is replaced", "reason", reason)
	signal(t.changed)
	return nil
}

// revokedFor gives why this node is revoked, "" if it is not.
func (t *trust) revokedFor() string {
	reason, _ := t.verifier.Revoked(t.identity.Node(), keymgr.CertificateInfo{})
	return string(reason)
}
