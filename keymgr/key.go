// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"crypto/ecdh"
	"encoding/base64"
	"fmt"
	"log/slog"
	"time"
)

// PublicKey is a WireGuard public key: an X25519 u-coordinate (RFC 7748).
type PublicKey [32]byte

// String returns the key in base64, as wg(8) shows it.
func (k PublicKey) String() string { return base64.StdEncoding.EncodeToString(k[:]) }

// IsZero reports whether k is the zero value, which is no key.
func (k PublicKey) IsZero() bool { return k == PublicKey{} }

// MarshalText returns the key in base64.
func (k PublicKey) MarshalText() ([]byte, error) { return []byte(k.String()), nil }

// UnmarshalText reads a key in base64, exactly as MarshalText writes it.
func (k *PublicKey) UnmarshalText(text []byte) error {
	raw, err := base64.StdEncoding.Strict().DecodeString(string(text))
	if err != nil {
		return fmt.Errorf("decode public key: %w", err)
	}
	if len(raw) != len(k) {
		return fmt.Errorf("decode public key: %d bytes instead of %d", len(raw), len(k))
	}
	copy(k[:], raw)
	return nil
}

// check refuses keys that WireGuard would accept but that cannot work or would give one
// point two names: non-canonical encodings and points of low order.
func (k PublicKey) check() error {
	if k.IsZero() {
		return fmt.Errorf("%w: all zero", ErrKey)
	}
	if !k.canonical() {
		return fmt.Errorf("%w: %s is not canonical", ErrKey, k)
	}
	pub, err := ecdh.X25519().NewPublicKey(k[:])
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	// Any scalar maps a point of low order, and only such, to zero; ECDH reports that.
	probe, err := ecdh.X25519().NewPrivateKey(make([]byte, 32))
	if err != nil {
		return fmt.Errorf("%w: %w", ErrKey, err)
	}
	if _, err := probe.ECDH(pub); err != nil {
		return fmt.Errorf("%w: %s has a low order", ErrKey, k)
	}
	return nil
}

// canonical reports whether k, little-endian, is below 2^255-19.
func (k PublicKey) canonical() bool {
	if k[31] != 0x7f {
		return k[31] < 0x7f
	}
	for i := 30; i > 0; i-- {
		if k[i] != 0xff {
			return true
		}
	}
	return k[0] < 0xed
}

// PrivateKey is a WireGuard private key. It does not show itself in logs or
// formatted output.
type PrivateKey [32]byte

// Public returns the public key that belongs to k.
func (k PrivateKey) Public() (PublicKey, error) {
	priv, err := ecdh.X25519().NewPrivateKey(k[:])
	if err != nil {
		return PublicKey{}, fmt.Errorf("derive public key: %w", err)
	}
	return PublicKey(priv.PublicKey().Bytes()), nil
}

// String hides the key.
func (PrivateKey) String() string { return "(private key)" }

// GoString hides the key from %#v.
func (PrivateKey) GoString() string { return "(private key)" }

// Format hides the key from every other verb, %x among them.
func (PrivateKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(private key)")) }

// LogValue hides the key from slog.
func (PrivateKey) LogValue() slog.Value { return slog.StringValue("(private key)") }

// PresharedKey is a WireGuard preshared key that two nodes agreed on. It does not show
// itself in logs or formatted output.
type PresharedKey [32]byte

// IsZero reports whether k is the zero value, which is no key.
func (k PresharedKey) IsZero() bool { return k == PresharedKey{} }

// String hides the key.
func (PresharedKey) String() string { return "(preshared key)" }

// GoString hides the key from %#v.
func (PresharedKey) GoString() string { return "(preshared key)" }

// Format hides the key from every other verb, %x among them.
func (PresharedKey) Format(f fmt.State, _ rune) { _, _ = f.Write([]byte("(preshared key)")) }

// LogValue hides the key from slog.
func (PresharedKey) LogValue() slog.Value { return slog.StringValue("(preshared key)") }

// PeerKey is a verified WireGuard key of another node. Only Verifier.Verify makes
// a valid one; the zero value is invalid and must not reach a kernel.
type PeerKey struct {
	key   PublicKey
	gen   uint64
	ports [2]uint16
	since int64 // seconds since 1970
	valid bool
}

// Valid reports whether the key came out of Verify.
func (k PeerKey) Valid() bool { return k.valid }

// Key returns the public key, zero if k is not valid.
func (k PeerKey) Key() PublicKey { return k.key }

// Generation returns the key's generation at its owner; its parity selects the device.
func (k PeerKey) Generation() uint64 { return k.gen }

// Ports returns the owner's UDP ports for this key, indexed by the parity of the
// reader's own key generation.
func (k PeerKey) Ports() [2]uint16 { return k.ports }

// Since returns when the owner created the key, to the second, as it has published.
func (k PeerKey) Since() time.Time { return time.Unix(k.since, 0).UTC() }

// Equal reports whether two keys are the same in every respect.
func (k PeerKey) Equal(o PeerKey) bool { return k == o }

// String returns generation and key for logs.
func (k PeerKey) String() string {
	if !k.valid {
		return "(invalid key)"
	}
	return fmt.Sprintf("%d:%s", k.gen, k.key)
}

// Parity returns the device slot of a key generation, 0 or 1.
func Parity(generation uint64) int { return int(generation & 1) }

// Port returns the UDP port of the device for a pair of key generations:
// base + 2*parity(own) + parity(peer).
func Port(base uint16, own, peer uint64) uint16 {
	return base + uint16(2*Parity(own)+Parity(peer))
}
