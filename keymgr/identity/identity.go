// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity

import (
	"bytes"
	"crypto/ecdsa"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"time"

	"github.com/sealane/sealane/internal/atomicfile"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/renewal"
)

// The files in the directory of an Identity.
const (
	fileOwner      = "identity.json"
	fileKey        = "node.key"
	fileNextKey    = "next.key"
	fileCert       = "node.crt"
	fileContinuity = "continuity.json"
	fileBundle     = "bundle.pem"
	fileNumber     = "bundle.number"
	fileStatement  = "statement.json"
)

// Config configures an Identity.
type Config struct {
	// Dir is created with mode 0700 if it does not exist.
	Dir string
	// Node is this node, as its live Node object says.
	Node keymgr.NodeID
	// TrustDomain is the cluster's: the UID of its kube-system namespace.
	TrustDomain string
	// Clock returns the current time; nil means time.Now.
	Clock func() time.Time
}

// Identity is this node's own ECDSA key, certificate, WireGuard keys and last
// statement, on disk. It is safe for concurrent use by one process.
type Identity struct {
	cfg  Config
	keys *WGKeys

	mu     sync.Mutex // guards all below
	key    *ecdsa.PrivateKey
	next   *ecdsa.PrivateKey // of the requested certificate, nil if none was requested
	links  []storedLink      // handovers, oldest first
	chain  [][]byte
	cert   *keymgr.NodeCertificate // nil without a certificate
	signed keymgr.Signed
	last   *keymgr.Statement // what signed says, nil if nothing was signed
}

// Owner says whose identity a directory holds.
type Owner struct {
	Node        keymgr.NodeID `json:"node"`
	TrustDomain string        `json:"trustDomain"`
}

// Peek returns whose identity a directory holds. It fails if a node could not start
// from it without an API server, because it holds no trusted roots. Peek changes
// nothing, unlike Open, which removes the files of other nodes.
func Peek(dir string) (Owner, error) {
	path := filepath.Join(dir, fileOwner)
	data, err := os.ReadFile(path)
	if err != nil {
		return Owner{}, fmt.Errorf("peek at identity: %w", err)
	}
	var o Owner
	if err := json.Unmarshal(data, &o); err != nil {
		return Owner{}, fmt.Errorf("peek at identity: %w: %s: %w", keymgr.ErrCorrupt, path, err)
	}
	bundle, err := os.ReadFile(filepath.Join(dir, fileBundle))
	if err == nil {
		_, err = keymgr.ParseBundle(bundle)
	}
	if err != nil {
		return Owner{}, fmt.Errorf("peek at identity of %s: trusted roots: %w", o.Node, err)
	}
	return o, nil
}

// Open opens the identity in cfg.Dir and creates its key if there is none. It first
// removes the files of another node, and of this one from before its Node object was
// deleted and created again: keys never pass from one identity to another.
func Open(cfg Config) (*Identity, error) {
	if cfg.Clock == nil {
		cfg.Clock = time.Now
	}
	if err := errors.Join(cfg.Node.Validate(), keymgr.ValidateTrustDomain(cfg.TrustDomain)); err != nil {
		return nil, fmt.Errorf("open identity: %w", err)
	}
	id := &Identity{cfg: cfg}
	for _, step := range []func() error{
		id.claimDir, id.loadKey, id.loadLinks, id.loadCertificate, id.finishSwitch, id.loadStatement, id.loadWGKeys,
	} {
		if err := step(); err != nil {
			return nil, fmt.Errorf("open identity: %w", err)
		}
	}
	return id, nil
}

// Node returns the node whose identity this is.
func (id *Identity) Node() keymgr.NodeID { return id.cfg.Node }

// TrustDomain returns the cluster's.
func (id *Identity) TrustDomain() string { return id.cfg.TrustDomain }

// WGKeys returns the WireGuard keys of this identity.
func (id *Identity) WGKeys() *WGKeys { return id.keys }

func (id *Identity) path(name string) string { return filepath.Join(id.cfg.Dir, name) }

// claimDir removes the files of any other identity from the directory. It writes the
// owner last, so that the removal is repeated after a crash.
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
	for _, name := range []string{fileKey, fileNextKey, fileCert, fileContinuity, fileBundle, fileNumber, fileStatement} {
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

// SaveBundle stores the trust bundle for a start without an API server. It writes
// nothing if that bundle is stored already.
func (id *Identity) SaveBundle(bundlePEM []byte) error {
	if stored, err := id.Bundle(); err == nil && bytes.Equal(stored, bundlePEM) {
		return nil
	}
	if _, err := keymgr.ParseBundle(bundlePEM); err != nil {
		return fmt.Errorf("save bundle: %w", err)
	}
	return atomicfile.Write(id.path(fileBundle), bundlePEM, 0o600)
}

// Bundle returns the stored trust bundle, or nil if there is none.
func (id *Identity) Bundle() ([]byte, error) {
	data, err := os.ReadFile(id.path(fileBundle))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	return data, err
}

// SaveBundleNumber stores the number of the step of the bundle's history that was taken last.
// Call it after SaveBundle: a crash in between leaves a number that is too low, and the next
// pass finds the step again.
func (id *Identity) SaveBundleNumber(number uint64) error {
	if id.BundleNumber() == number {
		return nil
	}
	return atomicfile.Write(id.path(fileNumber), strconv.AppendUint(nil, number, 10), 0o600)
}

// BundleNumber returns the stored number, 0 if there is none or it cannot be read: the roots
// themselves bar what they have not signed.
func (id *Identity) BundleNumber() uint64 {
	data, err := os.ReadFile(id.path(fileNumber))
	if err != nil {
		return 0
	}
	number, err := strconv.ParseUint(string(data), 10, 64)
	if err != nil {
		return 0
	}
	return number
}

// renewalTime returns a moment at 50–70 % of a lifetime, drawn from seed.
func renewalTime(from, to time.Time, seed string) time.Time {
	life := to.Sub(from)
	return from.Add(life / 2).Add(renewal.Draw(seed, life/5))
}
