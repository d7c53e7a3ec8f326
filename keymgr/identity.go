// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/sealane/sealane/internal/atomicfile"
)

// Files in the directory of an Identity.
const (
	fileOwner      = "identity.json"
	fileKey        = "node.key"
	fileNextKey    = "next.key"
	fileCert       = "node.crt"
	fileContinuity = "continuity.json"
	fileBundle     = "bundle.pem"
	fileStatement  = "statement.json"
)

// IdentityConfig configures an Identity.
type IdentityConfig struct {
	// Dir is made with mode 0700 if it does not exist.
	Dir string
	// Node is this node, as its live Node object says.
	Node        NodeID
	TrustDomain string
	// Clock is time.Now if nil.
	Clock func() time.Time
}

// Identity is this node's own ECDSA key, certificate, WireGuard keys and last
// statement, on disk. It is safe for concurrent use by one process.
type Identity struct {
	cfg  IdentityConfig
	keys *WGKeys

	mu     sync.Mutex // guards all below
	key    *ecdsa.PrivateKey
	next   *ecdsa.PrivateKey // of the certificate that was asked for, nil if none was
	links  []storedLink      // handovers, oldest first
	chain  [][]byte
	cert   *nodeCertificate // nil without a certificate
	signed Signed
	last   *Statement // what signed says, nil if nothing was signed
}

// Owner is the content of fileOwner: to whom the directory belongs.
type Owner struct {
	Node        NodeID `json:"node"`
	TrustDomain string `json:"trustDomain"`
}

// Peek tells whose identity lies in a directory, if it is one to start with without
// an API server: it has trusted roots. Nothing there changes; OpenIdentity would
// remove the files of anybody else.
func Peek(dir string) (Owner, error) {
	path := filepath.Join(dir, fileOwner)
	data, err := os.ReadFile(path)
	if err != nil {
		return Owner{}, fmt.Errorf("look at identity: %w", err)
	}
	var o Owner
	if err := json.Unmarshal(data, &o); err != nil {
		return Owner{}, fmt.Errorf("look at identity: %w: %s: %w", ErrCorrupt, path, err)
	}
	bundle, err := os.ReadFile(filepath.Join(dir, fileBundle))
	if err == nil {
		_, err = ParseBundle(bundle)
	}
	if err != nil {
		return Owner{}, fmt.Errorf("look at identity of %s: trusted roots: %w", o.Node, err)
	}
	return o, nil
}

// OpenIdentity opens the identity in cfg.Dir and makes its key if there is none.
// Files of another node, or of this one before it was deleted and made anew in the
// cluster, are removed first: keys never pass from one identity to another.
func OpenIdentity(cfg IdentityConfig) (*Identity, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if err := errors.Join(cfg.Node.Validate(), ValidateTrustDomain(cfg.TrustDomain)); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	id := &Identity{cfg: cfg}
	for _, step := range []func() error{id.claimDir, id.loadKey, id.loadLinks, id.loadCertificate, id.finishSwitch, id.loadStatement, id.loadWGKeys} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("open identity: %w", err)
		}
	}
	return id, nil
}

// Node returns the node whose identity this is.
func (id *Identity) Node() NodeID { return id.cfg.Node }

// WGKeys returns the WireGuard keys of this identity.
func (id *Identity) WGKeys() *WGKeys { return id.keys }

func (id *Identity) path(name string) string { return filepath.Join(id.cfg.Dir, name) }

// claimDir makes sure that the files in the directory are this identity's, and
// removes those that are not. The owner is written last, so that a crash repeats
// the removal.
func (id *Identity) claimDir() error {
	if err := os.MkdirAll(id.cfg.Dir, 0o700); err != nil {
		return err
	}
	want, err := json.Marshal(Owner{Node: id.cfg.Node, TrustDomain: id.cfg.TrustDomain})
	if err != nil {
		return err
	}
	have, err := os.ReadFile(id.path(fileOwner))
	if err == nil && string(have) == string(want) {
		return nil
	}
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	foreign, err := filepath.Glob(id.path(wgKeyPrefix + "*" + wgKeySuffix))
	if err != nil {
		return err
	}
	for _, name := range []string{fileKey, fileNextKey, fileCert, fileContinuity, fileBundle, fileStatement} {
		foreign = append(foreign, id.path(name))
	}
	for _, path := range foreign {
		if err := atomicfile.Remove(path); err != nil {
			return err
		}
	}
	return atomicfile.Write(id.path(fileOwner), want, 0o600)
}

func (id *Identity) loadWGKeys() (err error) {
	id.keys, err = openWGKeys(id.cfg.Dir, id.cfg.Clock)
	return err
}

// SaveBundle stores the trust bundle for a start without an API server. One that is
// stored already is not written again.
func (id *Identity) SaveBundle(bundlePEM []byte) error {
	if stored, err := id.Bundle(); err == nil && bytes.Equal(stored, bundlePEM) {
		return nil
	}
	if _, err := ParseBundle(bundlePEM); err != nil {
		return fmt.Errorf("save bundle: %w", err)
	}
	return atomicfile.Write(id.path(fileBundle), bundlePEM, 0o600)
}

// Bundle returns the stored trust bundle, nil if there is none.
func (id *Identity) Bundle() ([]byte, error) {
	data, err := os.ReadFile(id.path(fileBundle))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// fraction spreads seeds evenly over [0, 1). Renewal times are drawn with it from
// what a certificate or statement is, so that a restart does not draw again.
func fraction(seed string) float64 {
	h := sha256.Sum256([]byte(seed))
	n := uint64(h[0])<<24 | uint64(h[1])<<16 | uint64(h[2])<<8 | uint64(h[3])
	return float64(n) / (1 << 32)
}

// renewalTime returns a moment at 50–70 % of a lifetime.
func renewalTime(from, to time.Time, seed string) time.Time {
	share := 0.5 + 0.2*fraction(seed)
	return from.Add(time.Duration(share * float64(to.Sub(from))))
}
