// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package trust

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr/identity"
	"github.com/sealane/sealane/keymgr/renewal"
)

// refresh brings certificate, statement and NodeKey in line with what is wanted.
func (k *Keeper) refresh(ctx context.Context, w *wanted) error {
	if err := k.roots.news(); err != nil {
		k.warn(ctx, "TrustBundleRefused", err)
	}
	if len(w.bundle) == 0 {
		return ErrNoBundle
	}
	if err := k.checkSelfRevoked(ctx); err != nil {
		return err
	}
	why, rest := k.needsCertificate(w)
	if k.rest = rest; why == "" {
		return k.publishStatement(ctx, w)
	}
	k.rest = identityCheck
	var early error
	if k.identity.Serves(w.bundle, w.self.PodCIDRs) { // the controller may be away for days
		early = k.publishStatement(ctx, w)
	}
	if err := k.renew(ctx, w, why); err != nil {
		return errors.Join(err, early)
	}
	k.changed.Raise()
	return k.publishStatement(ctx, w)
}

// needsCertificate returns why a certificate should be requested now ("": no
// reason), and how long no other check is needed.
func (k *Keeper) needsCertificate(w *wanted) (why string, rest time.Duration) {
	if why := k.identity.NeedsCertificate(w.self.PodCIDRs); why != "" {
		return why, 0
	}
	if k.needsAddresses(w) {
		return identity.NeedAddresses, 0
	}
	var window *renewal.Window
	if len(w.window) > 0 {
		parsed, err := renewal.ParseWindow(w.window)
		if err != nil {
			k.log.Warn("renewal window ignored", "error", err)
		} else {
			window = &parsed
		}
	}
	now := k.clock()
	why, at := k.identity.NeedsRoot(w.bundle, window)
	if why == identity.NeedTrusted {
		at = k.spread(w, now)
	} else {
		k.distrusted = time.Time{}
	}
	switch {
	case why == "":
		return "", identityCheck
	case now.Before(at):
		return "", min(identityCheck, at.Sub(now))
	}
	return why, 0
}

// spread picks the moment of a request that all nodes may find due at once: their
// certificates lead to no trusted root any more.
func (k *Keeper) spread(w *wanted, now time.Time) time.Time {
	if k.distrusted.IsZero() {
		k.distrusted = now
	}
	span := renewal.Span(w.nodes)
	if span == renewal.Span(1) {
		return now // a few requests at once are no burden
	}
	return k.distrusted.Add(renewal.Draw(k.identity.Node().UID, span))
}

func (k *Keeper) renew(ctx context.Context, w *wanted, why string) error {
	csr, err := k.identity.CSR()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(ctx, requestTimeout)
	defer cancel()
	chain, err := k.cfg.Cluster.RequestCertificate(ctx, kube.CertificateRequest{Node: k.identity.Node(), CSR: csr, Validity: k.cfg.CertificateLifetime})
	if errors.Is(err, kube.ErrDenied) {
		k.warn(ctx, "CertificateDenied", err)
	}
	if err != nil {
		return fmt.Errorf("request certificate: %w", err)
	}
	if err := k.identity.SetCertificate(chain, w.bundle); err != nil {
		return fmt.Errorf("use new certificate: %w", err)
	}
	k.asked = asked{addresses: w.self.Addresses, controlPlane: w.self.ControlPlane, rivals: w.rivals, at: k.clock()}
	info, _ := k.identity.Certificate()
	k.log.Info("certificate issued", "why", why, "serial", info.Serial, "not_after", info.NotAfter, "renew_at", k.identity.RenewAt())
	return nil
}

// publishStatement signs a statement if the last one does not say what is wanted,
// and makes sure that it is published.
func (k *Keeper) publishStatement(ctx context.Context, w *wanted) error {
	in := identity.StatementInput{
		Keys: k.identity.WGKeys().Only(w.publish), RevokedGens: w.revoke, BasePort: k.cfg.LanePort,
		Endpoints: w.self.FirstAddresses(), PodCIDRs: w.self.PodCIDRs, PSK: k.cfg.PostQuantum, PSKPort: k.cfg.PairingPort,
	}
	if len(in.Keys) == 0 {
		return errNoLanes
	}
	if why := k.identity.NeedsStatement(in); why != "" {
		if _, err := k.identity.Sign(in); err != nil {
			return err
		}
		k.log.Info("key statement signed", "why", why, "generations", w.publish)
	}
	return k.publish(ctx, w, in)
}

// publish makes the NodeKey carry the newest statement. If the object claims to be
// newer, somebody else wrote it or this node's disk was set back; either way a
// statement signed now replaces it.
func (k *Keeper) publish(ctx context.Context, w *wanted, in identity.StatementInput) error {
	last, ok := k.identity.Last()
	if !ok || last.Equal(w.published) {
		return nil
	}
	err := k.cfg.Cluster.PublishNodeKey(ctx, k.identity.Node(), last)
	if !errors.Is(err, cluster.ErrNewer) && !errors.Is(err, cluster.ErrFork) {
		return err
	}
	k.warn(ctx, "NodeKeyOverwritten", err)
	if last, err = k.identity.Sign(in); err != nil {
		return err
	}
	return k.cfg.Cluster.OverwriteNodeKey(ctx, k.identity.Node(), last)
}
