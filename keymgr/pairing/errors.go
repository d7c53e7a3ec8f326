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
	// ErrProtocol: a message does not follow the protocol.
	ErrProtocol = errors.New("not the pairing protocol")
	// ErrDowngrade: the peer does not offer X25519MLKEM768.
	ErrDowngrade = errors.New("peer offers no X25519MLKEM768")
	// ErrCertificate: the peer's certificate is not accepted.
	ErrCertificate = errors.New("certificate not accepted")
	// ErrNotYet: the statement that the peer's present key signed has not arrived yet.
	ErrNotYet = errors.New("certificate ahead of the statement")
	// ErrHandshake: the peer or this node broke off the TLS handshake.
	ErrHandshake = errors.New("TLS handshake failed")
	// ErrUnreachable: the peer does not answer.
	ErrUnreachable = errors.New("peer does not answer")
	// ErrStranger: the connection comes from an address that is no node's, of which only a
	// few are heard in a second.
	ErrStranger = errors.New("too many connections from addresses that are no node's")
	// ErrCrowded: there are too many connections at this moment.
	ErrCrowded = errors.New("too many connections")
	// ErrRefused: the peer knows this node and refused; see RefusedError.
	ErrRefused = errors.New("peer refused")
)

// Refusal is one word that says why a server refused.
type Refusal string

// The refusals.
const (
	// RefusedKey: a key is not one that the server knows to be in use.
	RefusedKey Refusal = "unknown_key"
	// RefusedBusy: the server has asked this client at the same moment.
	RefusedBusy Refusal = "busy"
	// RefusedPolicy: the server does not use preshared keys with this peer.
	RefusedPolicy Refusal = "policy"
	// RefusedOther: the server could not prepare its side.
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

// refusalOf returns what a server tells the client about an error.
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
		{ErrStranger, "stranger"},
		{ErrCrowded, "crowded"},
	} {
		if errors.Is(err, known.err) {
			return known.word
		}
	}
	return "other"
}

// handshakeError gives the errors of a handshake the sentinels of this package where it
// can tell them apart. A server that shares no key agreement with the client answers with
// the alert handshake_failure (RFC 8446, 4.1.1).
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
