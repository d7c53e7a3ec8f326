// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package pairing

import (
	"errors"
	"fmt"
	"net"
	"slices"
)

var (
	// ErrProtocol is a message that does not follow the protocol.
	ErrProtocol = errors.New("not the pairing protocol")
	// ErrDowngrade is a peer without X25519MLKEM768.
	ErrDowngrade = errors.New("peer offers no X25519MLKEM768")
	// ErrCertificate is a peer whose certificate is not good.
	ErrCertificate = errors.New("certificate not accepted")
	// ErrNotYet is a peer whose statement has not arrived, or not the one that its
	// present key signed: one of the two is late.
	ErrNotYet = errors.New("certificate ahead of the statement")
	// ErrHandshake is a TLS handshake that the peer, or this end, broke off.
	ErrHandshake = errors.New("TLS handshake failed")
	// ErrUnreachable is a peer that does not answer.
	ErrUnreachable = errors.New("peer does not answer")
	// ErrRefused is a peer that knows this node and does not agree; see RefusedError.
	ErrRefused = errors.New("peer refused")
)

// Refusal is why a server does not agree, as one word.
type Refusal string

// The refusals.
const (
	// RefusedKey: a key is not one that the server knows to be in use.
	RefusedKey Refusal = "unknown_key"
	// RefusedBusy: the server has asked the client at the same moment.
	RefusedBusy Refusal = "busy"
	// RefusedPolicy: the server does not use preshared keys with this peer.
	RefusedPolicy Refusal = "policy"
	// RefusedOther: the server could not make its side ready.
	RefusedOther Refusal = "other"
)

func (r Refusal) known() bool {
	return slices.Contains([]Refusal{RefusedKey, RefusedBusy, RefusedPolicy, RefusedOther}, r)
}

// RefusedError is a refusal; it is an ErrRefused.
type RefusedError struct{ Reason Refusal }

// Error names the reason.
func (e *RefusedError) Error() string { return fmt.Sprintf("%v: %s", ErrRefused, e.Reason) }

// Unwrap makes it an ErrRefused.
func (*RefusedError) Unwrap() error { return ErrRefused }

// refusalOf is what a server tells of an error.
func refusalOf(err error) Refusal {
	if r, ok := errors.AsType[*RefusedError](err); ok {
		return r.Reason
	}
	return RefusedOther
}

// Reason returns a stable word for an error, for metrics and Events.
func Reason(err error) string {
	if r, ok := errors.AsType[*RefusedError](err); ok {
		return "refused_" + string(r.Reason)
	}
	for _, known := range []struct {
		err  error
		word string
	}{
		{ErrDowngrade, "downgrade"},
		{ErrNotYet, "not_yet"},
		{ErrCertificate, "certificate"},
		{ErrProtocol, "protocol"},
		{ErrHandshake, "handshake"},
		{ErrUnreachable, "unreachable"},
	} {
		if errors.Is(err, known.err) {
			return known.word
		}
	}
	return "other"
}

// handshakeError tells apart what can be told apart. A server that has no key
// agreement in common answers with the alert handshake_failure (RFC 8446, 4.1.1).
func handshakeError(err error) error {
	if errors.Is(err, ErrDowngrade) || errors.Is(err, ErrNotYet) || errors.Is(err, ErrCertificate) || errors.Is(err, ErrProtocol) {
		return err
	}
	// crypto/tls has no exported type for the alert of the other end.
	if op, ok := errors.AsType[*net.OpError](err); ok && op.Op == "remote error" && op.Err.Error() == "tls: handshake failure" {
		return fmt.Errorf("%w: %w", ErrDowngrade, err)
	}
	return fmt.Errorf("%w: %w", ErrHandshake, err)
}
