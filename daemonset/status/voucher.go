// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package status

import (
	"crypto/x509"
	"time"

	"github.com/sealane/sealane/keymgr"
)

// Evidence is what it takes to judge a node's key: what the node has published,
// and what the API server says of node and cluster.
type Evidence struct {
	TrustDomain string
	Bundle      []byte // PEM
	Live        keymgr.LiveNode
	Signed      keymgr.Signed
	Now         time.Time
}

// Voucher is the chain of who vouches for whom, from a node's WireGuard key up to
// the root. What it shows is as published; only if Err is nil does it hold.
type Voucher struct {
	Evidence
	Err       error               // why other nodes refuse the statement
	Statement keymgr.Statement    // zero if it cannot be read
	Chain     []*x509.Certificate // what can be read of it, the node's own first
	Root      *x509.Certificate   // of the bundle, that the chain leads to; nil: none
}

// Vouch judges as every other node does, but without a memory of its own: that a
// key or a pod range was somebody else's before, only the nodes know.
func Vouch(e Evidence) Voucher {
	v := Voucher{Evidence: e, Err: verify(e)}
	if s, err := keymgr.ParseStatement(e.Signed.Payload); err == nil {
		v.Statement = s
	}
	for _, der := range e.Signed.Chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			break
		}
		v.Chain = append(v.Chain, c)
	}
	v.Root = v.root()
	return v
}

func verify(e Evidence) error {
	verifier, err := keymgr.NewVerifier(keymgr.VerifierConfig{
		TrustDomain: e.TrustDomain,
		Self:        keymgr.NodeID{Name: "onlooker.invalid", UID: "onlooker"}, // RFC 2606: never a node
		Clock:       func() time.Time { return e.Now },
		PSK:         keymgr.PSKPreferred, // which goes with every other mode
	})
	if err != nil {
		return err
	}
	if err := verifier.SetRoots(e.Bundle); err != nil {
		return err
	}
	_, err = verifier.Verify(e.Signed, e.Live)
	return err
}

// root finds the certificate of the bundle that signed the end of the chain.
func (v Voucher) root() *x509.Certificate {
	roots, err := keymgr.ParseBundle(v.Bundle)
	if err != nil || len(v.Chain) == 0 {
		return nil
	}
	last := v.Chain[len(v.Chain)-1]
	for _, root := range roots {
		if root.Equal(last) || last.CheckSignatureFrom(root) == nil {
			return root
		}
	}
	return nil
}
