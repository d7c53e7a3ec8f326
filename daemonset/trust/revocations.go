// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"context"
	"fmt"
	"sync"

	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr"
)

// revocationWatcher follows the published revocation list.
type revocationWatcher struct {
	verifier *keymgr.Verifier

	mu       sync.Mutex // guards all below
	seen     string     // the newest record that was checked
	refused  error      // why it is not in force; nil: it is
	reported bool       // refused has been returned by refusal
}

// follow puts the published list into force. If it is missing or not acceptable,
// the list before stays in force.
func (r *revocationWatcher) follow(record cluster.RevocationRecord) {
	if len(record.List) == 0 {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.seen == string(record.List) && r.refused == nil {
		return
	}
	signed, err := keymgr.DecodeSigned(record.List)
	if err == nil {
		err = r.verifier.SetRevocations(signed)
	}
	if r.seen != string(record.List) {
		r.seen, r.reported = string(record.List), false
	}
	r.refused = err
}

// refusal returns why the published list is not in force, once per list.
func (r *revocationWatcher) refusal() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.refused == nil || r.reported {
		return nil
	}
	r.reported = true
	return r.refused
}

// number is that of the list in force, 0 if there is none.
func (r *revocationWatcher) number() uint64 {
	l, _ := r.verifier.Revocations()
	return l.Number
}

// checkSelfRevoked returns an error while this node is revoked: it can only wait to
// be readmitted. If only its key is revoked, the node gives itself a new identity.
func (k *Keeper) checkSelfRevoked(ctx context.Context) error {
	if err := k.revocations.refusal(); err != nil {
		k.warn(ctx, "RevocationListRefused", err)
	}
	node := k.identity.Node()
	why := k.revokedFor()
	k.cfg.State.SetRevoked(why != "")
	if why != "" {
		return fmt.Errorf("this node is %w: %s; sealane readmit %s brings it back, with a new key", keymgr.ErrRevoked, why, node.Name)
	}
	key, err := k.identity.KeyHash()
	if err != nil {
		return err
	}
	info, _ := k.identity.Certificate()
	info.SPKI = key // also before there is a certificate for it
	reason, revoked := k.verifier.Revoked(node, info)
	if !revoked {
		return nil
	}
	if err := k.identity.Reset(); err != nil {
		return fmt.Errorf("replace revoked key: %w", err)
	}
	k.log.Warn("node key was revoked and is replaced", "reason", reason)
	k.changed.Raise()
	return nil
}

// revokedFor returns why this node is revoked, "" if it is not.
func (k *Keeper) revokedFor() string {
	reason, _ := k.verifier.Revoked(k.identity.Node(), keymgr.CertificateInfo{})
	return string(reason)
}
