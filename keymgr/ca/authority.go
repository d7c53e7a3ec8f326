// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/sealane/sealane/keymgr"
)

const (
	// DefaultRootLifetime is of a root that the authority makes itself.
	DefaultRootLifetime = 10 * 365 * 24 * time.Hour
	// DefaultIntermediateLifetime is of the issuing intermediate.
	DefaultIntermediateLifetime = 365 * 24 * time.Hour

	// LeavesPerIntermediate is how many lifetimes of a leaf an intermediate lasts at
	// least: it is replaced at two thirds of its life, and must cut no leaf short.
	LeavesPerIntermediate = 3
	// IntermediatesPerRoot is the same of a root, which is replaced at 80 %.
	IntermediatesPerRoot = 2

	// Each conflict means that another controller has got further.
	maxConflicts = 10
)

// Config configures an Authority.
type Config struct {
	// TrustDomain is the only one that the intermediate may issue names of.
	TrustDomain string
	// Store keeps what the authority makes: the intermediate with its key, and the
	// root unless it is handed in.
	Store Store
	// RootStore keeps the root's key apart, so that it can be taken away; see
	// ExportRoot. Nil leaves it in Store.
	RootStore Store
	// Root is handed in by the operator; left zero, the authority makes its own.
	Root Root
	// Clock is time.Now if nil.
	Clock func() time.Time
	// RootLifetime and IntermediateLifetime default to the constants.
	RootLifetime         time.Duration
	IntermediateLifetime time.Duration
}

// Root is a root that is handed in.
type Root struct {
	// Certificates is PEM. The first certificate issues the intermediate; others are
	// trusted as well, which is for the time of a change of roots.
	Certificates []byte
	// Key is the first certificate's private key in PEM (PKCS #8, PKCS #1 or SEC 1).
	// Without it the root is offline, and the intermediate must be handed in or
	// stored already.
	Key []byte
	// Shared says that others trust this root too, as the Kubernetes cluster's own
	// CA. The intermediate is then marked critical, so that they refuse everything
	// below it; see keymgr.NodeIssuerExtension.
	Shared bool
	// Intermediate and IntermediateKey, in PEM, are for a root that is offline. The
	// certificate must carry keymgr.NodeIssuerExtension and path length 0.
	Intermediate    []byte
	IntermediateKey []byte
}

// Authority is a certificate authority: a root, and an intermediate that issues
// node certificates. It implements Issuer and is safe for concurrent use.
type Authority struct {
	cfg   Config
	shelf shelf

	mu  sync.RWMutex // guards now
	now material
}

// Open loads the authority from its store and makes what is missing. Of several
// controllers that start at once, one makes the root and all use it.
func Open(ctx context.Context, cfg Config) (*Authority, error) {
	if err := keymgr.ValidateTrustDomain(cfg.TrustDomain); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	if cfg.Store == nil {
		return nil, errors.New("open authority: no store")
	}
	a := &Authority{cfg: cfg.withDefaults(), shelf: shelf{main: cfg.Store, root: cfg.RootStore}}
	if a.handedIn() {
		a.shelf.root = nil
	}
	if err := a.Renew(ctx); err != nil {
		return nil, fmt.Errorf("open authority: %w", err)
	}
	return a, nil
}

func (c Config) withDefaults() Config {
	if c.Clock == nil {
		c.Clock = time.Now
	}
	if c.RootLifetime == 0 {
		c.RootLifetime = DefaultRootLifetime
	}
	if c.IntermediateLifetime == 0 {
		c.IntermediateLifetime = DefaultIntermediateLifetime
	}
	return c
}

// handedIn tells whether the root is the operator's, who then changes it too.
func (a *Authority) handedIn() bool { return len(a.cfg.Root.Certificates) > 0 }

// Renew takes over what another controller has stored meanwhile and makes a new
// intermediate if one is due. After an error the authority is as before.
func (a *Authority) Renew(ctx context.Context) error {
	return a.change(ctx, func(*material) error { return nil })
}

// Advance takes a change of roots one phase further if the fleet allows it, and
// tells whether it did. It begins one on request, or when a root that the authority
// made has passed 80 % of its life. What it decides is stored before it has an
// effect, so that it can be called after a crash at any moment.
func (a *Authority) Advance(ctx context.Context, f Fleet) (moved bool, err error) {
	m := a.current()
	if over, err := a.phaseOver(&m, f); err != nil || !over {
		return false, err
	}
	err = a.change(ctx, func(m *material) error {
		over, err := a.phaseOver(m, f) // another controller may have got further
		if err != nil || !over {
			return err
		}
		moved = true
		return a.advance(m, f)
	})
	return moved && err == nil, err
}

// change stores a change and then makes it that of the authority.
func (a *Authority) change(ctx context.Context, edit func(*material) error) error {
	for range maxConflicts {
		stored, err := a.shelf.load(ctx)
		if err != nil {
			return err
		}
		m, err := a.settle(stored.files)
		if err != nil {
			return err
		}
		if err := edit(&m); err != nil {
			return err
		}
		if err := a.prove(&m); err != nil {
			return err
		}
		err = a.shelf.save(ctx, stored, m.files)
		if errors.Is(err, ErrConflict) {
			continue
		}
		if err != nil {
			return err
		}
		m.forgetRootKeys()
		a.mu.Lock()
		a.now = m
		a.mu.Unlock()
		return nil
	}
	return fmt.Errorf("save certificate authority: %w, %d times", ErrConflict, maxConflicts)
}

// settle makes complete material out of what is configured and stored.
func (a *Authority) settle(files map[string][]byte) (material, error) {
	m := material{files: clone(files), rotation: rotation{Phase: PhaseSteady}}
	if err := a.settleRoot(&m); err != nil {
		return material{}, err
	}
	return m, a.settleIntermediate(&m)
}

func (a *Authority) settleRoot(m *material) error {
	if a.handedIn() {
		return m.loadRoot(a.cfg.Root.Certificates, a.cfg.Root.Key)
	}
	if len(m.files[FileRootCert]) == 0 {
		return a.makeRoot(m)
	}
	return m.loadOwnRoots()
}

func (a *Authority) settleIntermediate(m *material) error {
	cert, key := a.cfg.Root.Intermediate, a.cfg.Root.IntermediateKey
	handedIn := len(cert) > 0
	if !handedIn {
		cert, key = m.files[FileIntermediateCert], m.files[FileIntermediateKey]
	}
	if len(cert) > 0 {
		if err := m.loadIntermediate(cert, key); err != nil {
			return err
		}
		if handedIn {
			return a.checkHandedIn(*m)
		}
		if a.suits(*m) {
			return nil
		}
	}
	if m.rootKey == nil && len(cert) > 0 && a.usable(*m) == nil {
		return nil // it is due, and lasts a while yet; Status says that the root is wanted
	}
	return a.makeIntermediate(m)
}

// checkHandedIn takes the operator's intermediate as it is, but not below a shared
// root without the mark that keeps it from being trusted there. What else it must
// be, prove finds out.
func (a *Authority) checkHandedIn(m material) error {
	if a.cfg.Root.Shared && !criticalMark(m.intermediate) {
		mark := keymgr.NodeIssuerExtension(true)
		return fmt.Errorf("%w: extension %s must be critical below a root that others trust", ErrIntermediate, mark.Id)
	}
	return nil
}

// suits tells whether the intermediate is good and need not be renewed now.
func (a *Authority) suits(m material) bool {
	return a.usable(m) == nil && !a.due(m)
}

// usable checks that the intermediate was made for this root and configuration.
func (a *Authority) usable(m material) error {
	i := m.intermediate
	if err := i.CheckSignatureFrom(m.roots[0]); err != nil {
		return fmt.Errorf("%w: issued by another root: %w", ErrIntermediate, err)
	}
	if len(i.PermittedURIDomains) != 1 || i.PermittedURIDomains[0] != a.cfg.TrustDomain {
		return fmt.Errorf("%w: made for trust domain %q", ErrIntermediate, i.PermittedURIDomains)
	}
	if criticalMark(i) != a.cfg.Root.Shared {
		return fmt.Errorf("%w: made for another kind of root", ErrIntermediate)
	}
	if now := a.cfg.Clock(); now.After(i.NotAfter) {
		return fmt.Errorf("%w: expired %s", ErrIntermediate, i.NotAfter)
	}
	return nil
}

// due tells whether a third of the intermediate's life or less is left, and a new
// one would last notably longer.
func (a *Authority) due(m material) bool {
	now, i := a.cfg.Clock(), m.intermediate
	gain := a.intermediateEnd(m, now).Sub(i.NotAfter)
	return !now.Before(renewAt(i.NotBefore, i.NotAfter)) && gain > a.cfg.IntermediateLifetime/10
}

func renewAt(from, to time.Time) time.Time { return from.Add(to.Sub(from) / 3 * 2) }

// Bundle implements Issuer.
func (a *Authority) Bundle() []byte {
	m := a.current()
	return m.bundle()
}

func (a *Authority) current() material {
	a.mu.RLock()
	defer a.mu.RUnlock()
	return a.now
}
