// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bundle

import (
	"bytes"
	"crypto/sha256"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/sealane/sealane/keymgr"
)

// Type is the type and version of what is signed. A change that an old reader must not
// ignore gets a new version.
const Type = "trust-bundle/v1"

const (
	// MaxSteps bounds a history. Of each change of roots it has three steps.
	MaxSteps = 12

	// signAgain is how old a last step gets. If the controller's clock was behind when it
	// signed, readers that know a higher number wait no longer than that.
	signAgain = 24 * time.Hour

	maxRoots   = 32
	maxPayload = 4 << 10
	maxHistory = 256 << 10
)

// step says which roots are trusted from a moment on.
type step struct {
	Type        string `json:"type"`
	TrustDomain string `json:"trustDomain"`
	// Number grows with every step: max(previous+1, Unix time in milliseconds).
	Number uint64 `json:"number"`
	// Roots are the SHA-256 hashes of the root certificates (DER), sorted.
	Roots []keymgr.Hash `json:"roots"`
}

// encode returns the only form that readers accept.
func (s step) encode() ([]byte, error) {
	data, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("encode step of the trust bundle: %w", err)
	}
	return data, nil
}

func parseStep(payload []byte) (step, error) {
	var s step
	if len(payload) > maxPayload {
		return s, fmt.Errorf("%w: step of %d bytes, at most %d", keymgr.ErrTooLarge, len(payload), maxPayload)
	}
	if err := json.Unmarshal(payload, &s); err != nil {
		return s, fmt.Errorf("%w: %w", keymgr.ErrFormat, err)
	}
	if s.Type != Type {
		return s, fmt.Errorf("%w: %q instead of %q", keymgr.ErrType, s.Type, Type)
	}
	canonical, err := s.encode()
	if err != nil || !bytes.Equal(canonical, payload) {
		return s, fmt.Errorf("%w: not in canonical form", keymgr.ErrFormat)
	}
	if len(s.Roots) == 0 || len(s.Roots) > maxRoots || !slices.IsSortedFunc(s.Roots, compare) {
		return s, fmt.Errorf("%w: %d roots, want 1 to %d in order", keymgr.ErrFormat, len(s.Roots), maxRoots)
	}
	return s, nil
}

// History is the signed steps that led to a bundle, oldest first. A node that was away
// follows them from the roots that it trusts to those of today.
type History []keymgr.Signed

// Parse reads a history. It verifies nothing.
func Parse(data []byte) (History, error) {
	if len(data) > maxHistory {
		return nil, fmt.Errorf("read history of the trust bundle: %w: %d bytes, at most %d", keymgr.ErrTooLarge, len(data), maxHistory)
	}
	if len(data) == 0 {
		return nil, nil
	}
	var h History
	if err := json.Unmarshal(data, &h); err != nil {
		return nil, fmt.Errorf("read history of the trust bundle: %w: %w", keymgr.ErrFormat, err)
	}
	return h, nil
}

// Encode returns what Parse reads.
func (h History) Encode() ([]byte, error) {
	data, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode history of the trust bundle: %w", err)
	}
	return data, nil
}

// Extend is Append for an encoded history. One that cannot be read begins anew.
func Extend(data []byte, roots []*x509.Certificate, by Signer) ([]byte, error) {
	h, err := Parse(data)
	if err != nil {
		h = nil
	}
	if h, err = h.Append(roots, by); err != nil {
		return nil, err
	}
	return h.Encode()
}

// Signer signs the steps.
type Signer struct {
	TrustDomain string
	Key         keymgr.Issuer // its chain ends with the root that the issuer is below
	Now         time.Time
}

// Append returns the history that leads to these roots: h itself, if its last step says so,
// is this issuer's and of this day, else h with one more step. A step that an intermediate of
// the same root has said before is replaced, and what is from the future, of a time when
// the clock was ahead, is left out: readers would refuse it.
func (h History) Append(roots []*x509.Certificate, by Signer) (History, error) {
	h = slices.DeleteFunc(slices.Clone(h), func(s keymgr.Signed) bool {
		old, err := parseStep(s.Payload)
		return err != nil || old.TrustDomain != by.TrustDomain || keymgr.CheckNumber(old.Number, by.Now) != nil
	})
	next := step{Type: Type, TrustDomain: by.TrustDomain, Number: uint64(max(by.Now.UnixMilli(), 1)), Roots: hashes(roots)}
	h, said, err := h.follow(&next, by)
	if err != nil || said {
		return h, err
	}
	payload, err := next.encode()
	if err != nil {
		return nil, err
	}
	if _, err := parseStep(payload); err != nil { // what no reader would take must not be signed
		return nil, err
	}
	signed, err := by.Key.Sign(keymgr.ContextBundle, payload)
	if err != nil {
		return nil, fmt.Errorf("sign trust bundle: %w", err)
	}
	h = append(h, signed)
	return h[max(0, len(h)-MaxSteps):], nil
}

// follow numbers the next step after those of h, and returns those that stay before it. It
// reports whether the last one says the same for long enough.
func (h History) follow(next *step, by Signer) (before History, said bool, err error) {
	if len(h) == 0 {
		return h, false, nil
	}
	last := h[len(h)-1]
	old, err := parseStep(last.Payload)
	if err != nil {
		return nil, false, err
	}
	next.Number = max(next.Number, old.Number+1)
	if !slices.Equal(old.Roots, next.Roots) {
		return h, false, nil
	}
	age := by.Now.Sub(time.UnixMilli(int64(old.Number)))
	if age < signAgain && slices.EqualFunc(last.Chain, by.Key.Chain, bytes.Equal) {
		return h, true, nil
	}
	if bytes.Equal(top(last.Chain), top(by.Key.Chain)) {
		h = h[:len(h)-1]
	}
	return h, false, nil
}

func top(chain [][]byte) []byte {
	if len(chain) == 0 {
		return nil
	}
	return chain[len(chain)-1]
}

// hashes returns the hashes of certificates, sorted, each once.
func hashes(certs []*x509.Certificate) []keymgr.Hash {
	all := make([]keymgr.Hash, 0, len(certs))
	for _, c := range certs {
		all = append(all, sha256.Sum256(c.Raw))
	}
	slices.SortFunc(all, compare)
	return slices.Compact(all)
}

func compare(a, b keymgr.Hash) int { return bytes.Compare(a[:], b[:]) }

var errNoSignature = errors.New("it is not signed")
