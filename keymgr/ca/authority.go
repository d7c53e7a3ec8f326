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
	"github.com/sealane/sealane/keymgr/extension"
	"github.com/sealane/sealane/keymgr/rootchange"
)

const (
	// DefaultRootLifetime is the lifetime of a root that the authority creates itself.
	DefaultRootLifetime = 10 * 365 * 24 * time.Hour
	// DefaultIntermediateLifetime is the lifetime of the issuing intermediate.
	DefaultIntermediateLifetime = 365 * 24 * time.Hour

	// LeavesPerIntermediate is how many lifetimes of a leaf an intermediate must last at
	// least. It is replaced at two thirds of its life and must not cut a leaf short.
	LeavesPerIntermediate = 3
	// IntermediatesPerRoot is how many lifetimes of an intermediate a root must last at
	// least. It is replaced at 80 % of its life.
	IntermediatesPerRoot = 2

	// maxConflicts bounds retries. Each conflict means that another controller got further.
	maxConflicts = 10
)

// Config configures an Authority.
type Config struct {
	// TrustDomain is the only trust domain that the intermediate may issue for.
	TrustDomain string
	// Store keeps what the authority creates: the intermediate with its key, and the root
	// unless the operator provides it.
	Store Store
	// RootStore keeps the root's key apart, so that an operator can take it away; see
	// ExportRoot. Nil leaves the key in Store.
	RootStore Store
	// Root is provided by the operator; if it is zero, the authority creates its own.
	Root Root
	// Clock returns the current time; nil means time.Now.
	Clock func() time.Time
	// RootLifetime is the lifetime of a new root; 0 means DefaultRootLifetime.
	RootLifetime time.Duration
	// IntermediateLifetime is the lifetime of a new intermediate; 0 means
	// DefaultIntermediateLifetime.
	IntermediateLifetime time.Duration
}

// Root is a root that the operator provides.
type Root struct {
	// Certificates is PEM. The first certificate issues the intermediate. The others are
	// trusted too, for the time of a change of roots.
	Certificates []byte
	// Key is the first certificate's private key in PEM (PKCS #8, PKCS #1 or SEC 1).
	// Without it the root is offline, and the intermediate must be handed in or
	// stored already.
	Key []byte
	// Shared says that other software trusts this root too, because it is the Kubernetes
	// cluster's own CA for example. The intermediate then carries a critical mark, which
	// makes that software refuse everything below it; see extension.NodeIssuer.
	Shared bool
	// Intermediate and IntermediateKey, in PEM, are for a root that is offline. The
	// certificate must carry extension.NodeIssuer and path length 0.
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

// Open loads the authority from its store and creates what is missing. If several
// controllers start at once, one creates the root and all use it.
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

// handedIn reports whether the operator provides the root, and so changes it too.
func (a *Authority) handedIn() bool { return len(a.cfg.Root.Certificates) > 0 }

// Renew takes over what another controller has stored meanwhile and creates a new
// intermediate if one is due. After an error the authority is as before.
func (a *Authority) Renew(ctx context.Context) error {
	return a.change(ctx, func(*material) error { return nil })
}

// Advance moves a change of roots to the next phase if the fleet allows it, and reports
// whether it did. It begins a change on request, or when a root that the authority
// created has passed 80 % of its life. It stores each decision before the decision has an
// effect, so it may be called after a crash at any moment.
func (a *Authority) Advance(ctx context.Context, f rootchange.Fleet) (moved bool, err error) {
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

// change stores a change and then applies it to the authority.
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
		if err := errors.Join(a.prove(&m), a.announce(&m)); err != nil {
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

// settle completes the material from what is configured and stored.
func (a *Authority) settle(files map[string][]byte) (material, error) {
	m := material{files: clone(files), rotation: rotation{Phase: rootchange.PhaseSteady}}
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
		return nil // it is due but still valid; Status says that the root is wanted
	}
	return a.makeIntermediate(m)
}

// checkHandedIn accepts the operator's intermediate as it is, with one exception: below a
// shared root, it must carry the critical extension that makes other relying parties
// reject it. What else it must be, prove finds out.
func (a *Authority) checkHandedIn(m material) error {
	if a.cfg.Root.Shared && !criticalMark(m.intermediate) {
		mark := extension.NodeIssuer(true)
		return fmt.Errorf("%w: extension %s must be critical below a root that others trust", ErrIntermediate, mark.Id)
	}
	return nil
}

// suits reports whether the intermediate is good and need not be renewed now.
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

// due reports whether at most a third of the intermediate's life is left and a new one
// would last notably longer.
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
