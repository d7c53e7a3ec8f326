// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"time"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/identity"
)

// Facts is what this node knows of its own identity and of what it trusts. The
// zero value of each field means that there is none yet.
type Facts struct {
	BundleHash string // of the roots in use
	// BundleRefused says why the published roots are not in use, with the remedy; "": they are.
	BundleRefused string
	Certificate   *keymgr.CertificateInfo
	RenewAt       time.Time         // of the certificate
	Key           *identity.WGKey   // the newest WireGuard key
	Statement     *keymgr.Statement // the newest one that this node has signed

	RevocationsIssuedAt time.Time // of the list in force
	RevokedFor          string    // why this node is revoked; "": it is not

	Refused            []status.Refusal // statements of other nodes, since the daemon started
	ContinuityWarnings []status.Refusal // the same, of accepted statements
	RefusedAddresses   []status.Refusal // the same, of addresses in accepted statements
}

// Facts gathers them; it asks neither kernel nor API server.
func (k *Keeper) Facts() Facts {
	f := Facts{RevokedFor: k.revokedFor(), BundleRefused: k.roots.pending()}
	if hash, ok := k.verifier.Bundle(); ok {
		f.BundleHash = hash.String()
	}
	if info, ok := k.identity.Certificate(); ok {
		f.Certificate, f.RenewAt = &info, k.identity.RenewAt()
	}
	if all := k.identity.WGKeys().All(); len(all) > 0 {
		f.Key = &all[len(all)-1]
	}
	if signed, ok := k.identity.Last(); ok {
		if s, err := keymgr.ParseStatement(signed.Payload); err == nil {
			f.Statement = &s
		}
	}
	if l, ok := k.verifier.Revocations(); ok {
		f.RevocationsIssuedAt = l.IssuedAt
	}
	c := k.peers.counts()
	f.Refused, f.ContinuityWarnings, f.RefusedAddresses = c.refusals, c.continuityWarnings, c.refusedAddresses
	return f
}
