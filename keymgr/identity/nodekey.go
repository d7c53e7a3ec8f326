// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"slices"

	"github.com/sealane/sealane/internal/atomicfile"
	"github.com/sealane/sealane/keymgr"
)

// Each certificate has a key of its own. The next key is created and stored with the
// request for its certificate. When the certificate arrives, these files change in this
// order, each after the one before is on disk, and a start after a crash continues where
// it stopped:
//
//	continuity.json  the old key has vouched for the new one
//	node.crt         the certificate of the new key
//	node.key         the new key; the old one is gone
//	next.key         removed

// storedLink is a link with the hash of the key that it leads to.
type storedLink struct {
	keymgr.Link
	Next keymgr.Hash `json:"next"`
}

func spki(key *ecdsa.PrivateKey) ([32]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return [32]byte{}, fmt.Errorf("encode public key: %w", err)
	}
	return sha256.Sum256(der), nil
}

// readKey reads a private key. It returns nil if the file does not exist.
func (id *Identity) readKey(file string) (*ecdsa.PrivateKey, error) {
	path := id.path(file)
	data, err := os.ReadFile(path)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, fmt.Errorf("%w: %s: not PEM (delete it to get a new key and certificate)", keymgr.ErrCorrupt, path)
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w (delete it to get a new key and certificate)", keymgr.ErrCorrupt, path, err)
	}
	key, ok := parsed.(*ecdsa.PrivateKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, fmt.Errorf("%w: %s: not an ECDSA P-256 key", keymgr.ErrCorrupt, path)
	}
	return key, nil
}

func (id *Identity) createKey(file string) (*ecdsa.PrivateKey, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("generate node key: %w", err)
	}
	return key, id.writeKey(file, key)
}

func (id *Identity) writeKey(file string, key *ecdsa.PrivateKey) error {
	der, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return fmt.Errorf("encode node key: %w", err)
	}
	return atomicfile.Write(id.path(file), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)
}

func (id *Identity) loadKey() (err error) {
	if id.key, err = id.readKey(fileKey); err == nil && id.key == nil {
		id.key, err = id.createKey(fileKey)
	}
	if err != nil {
		return err
	}
	id.next, err = id.readKey(fileNextKey)
	if errors.Is(err, keymgr.ErrCorrupt) { // nothing depends on it yet
		id.next, err = nil, atomicfile.Remove(id.path(fileNextKey))
	}
	return err
}

// loadLinks reads the handovers. Without them other nodes will warn at the next change
// of keys, but that is no reason not to start.
func (id *Identity) loadLinks() error {
	data, err := os.ReadFile(id.path(fileContinuity))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if json.Unmarshal(data, &id.links) != nil {
		id.links = nil
	}
	return nil
}

// requestKeyLocked returns the key to request a certificate for: the present key if it
// has no certificate yet, otherwise the next one.
func (id *Identity) requestKeyLocked() (key *ecdsa.PrivateKey, err error) {
	if id.cert == nil {
		return id.key, nil
	}
	if id.next == nil {
		id.next, err = id.createKey(fileNextKey)
	}
	return id.next, err
}

// handOverLocked lets the present key vouch for the next one.
func (id *Identity) handOverLocked() error {
	to, err := spki(id.next)
	if err != nil {
		return err
	}
	link, err := keymgr.SignLink(id.key, id.cfg.TrustDomain, id.cfg.Node, to)
	if err != nil {
		return err
	}
	links := append(id.chainOfLinksLocked(), storedLink{Link: link, Next: to})
	links = links[max(0, len(links)-keymgr.MaxLinks):]
	data, err := json.Marshal(links)
	if err != nil {
		return fmt.Errorf("encode continuity: %w", err)
	}
	if err := atomicfile.Write(id.path(fileContinuity), data, 0o600); err != nil {
		return err
	}
	id.links = links
	return nil
}

// chainOfLinksLocked returns the handovers that end at the present key. After a crash
// the file may hold one more, to a key whose certificate never arrived.
func (id *Identity) chainOfLinksLocked() []storedLink {
	have, err := spki(id.key)
	if err != nil {
		return nil
	}
	for i, l := range slices.Backward(id.links) {
		if l.Next == keymgr.Hash(have) {
			return slices.Clone(id.links[:i+1])
		}
	}
	return nil
}

// useNextKeyLocked replaces the present key with the next one.
func (id *Identity) useNextKeyLocked() error {
	if err := id.writeKey(fileKey, id.next); err != nil {
		return err
	}
	id.key, id.next = id.next, nil
	return nil
}

// finishSwitch completes a change of keys that a crash has interrupted.
func (id *Identity) finishSwitch() error {
	switch {
	case id.next == nil:
		return nil
	case id.next.Equal(id.key):
		id.next = nil
	case id.cert != nil && id.cert.IsFor(&id.next.PublicKey):
		if err := id.useNextKeyLocked(); err != nil {
			return err
		}
	default:
		return nil // asked for, and not there yet
	}
	return atomicfile.Remove(id.path(fileNextKey))
}

// continuityLocked returns the handovers to publish with a statement.
func (id *Identity) continuityLocked() []keymgr.Link {
	var out []keymgr.Link
	for _, l := range id.chainOfLinksLocked() {
		out = append(out, l.Link)
	}
	return out
}
