// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package pairing

import (
	"crypto/sha256"
	"crypto/tls"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"slices"

	"github.com/sealane/sealane/keymgr"
)

const (
	// protocol is the ALPN name (RFC 7301) of this version.
	protocol = "sealane-pairing/1"
	// Purpose is what the secret is for: a WireGuard preshared key.
	Purpose = "wireguard-psk"
	// exporterLabel is the label of that purpose (RFC 5705, section 4).
	exporterLabel = "EXPORTER-sealane-wg-psk-v1"
	// maxMessage bounds a message, in bytes.
	maxMessage = 2048
)

// Subject names the two WireGuard keys that a preshared key is for.
type Subject struct {
	// Peer is the other node.
	Peer keymgr.NodeID
	// Own is the WireGuard key of this node, Theirs that of the peer.
	Own, Theirs keymgr.PublicKey
}

// hello is what each node says the secret is for. A server that refuses says why instead.
type hello struct {
	Purpose string           `json:"purpose"`
	Node    keymgr.NodeID    `json:"node"`
	Key     keymgr.PublicKey `json:"key"`
	PeerKey keymgr.PublicKey `json:"peerKey"`
	Refused Refusal          `json:"refused,omitempty"`
}

func (h hello) subject() Subject {
	return Subject{Peer: h.Node, Own: h.PeerKey, Theirs: h.Key}
}

// write sends a message and returns the bytes that both ends bind the secret to.
func (h hello) write(w io.Writer) ([]byte, error) {
	data, err := h.encode()
	if err != nil {
		return nil, err
	}
	if _, err := w.Write(data); err != nil {
		return nil, fmt.Errorf("send: %w", err)
	}
	return data, nil
}

func (h hello) encode() ([]byte, error) {
	payload, err := json.Marshal(h)
	if err != nil {
		return nil, fmt.Errorf("encode message: %w", err)
	}
	if len(payload) > maxMessage {
		return nil, fmt.Errorf("encode message: %w: %d bytes, at most %d", ErrProtocol, len(payload), maxMessage)
	}
	return append(binary.BigEndian.AppendUint16(nil, uint16(len(payload))), payload...), nil
}

// read receives a message, and returns it with its bytes.
func read(r io.Reader) (hello, []byte, error) {
	data := make([]byte, 2, 512)
	if _, err := io.ReadFull(r, data); err != nil {
		return hello{}, nil, fmt.Errorf("receive: %w", err)
	}
	size := int(binary.BigEndian.Uint16(data))
	if size > maxMessage {
		return hello{}, nil, fmt.Errorf("receive: %w: %d bytes, at most %d", ErrProtocol, size, maxMessage)
	}
	data = append(data, make([]byte, size)...)
	if _, err := io.ReadFull(r, data[2:]); err != nil {
		return hello{}, nil, fmt.Errorf("receive: %w", err)
	}
	h, err := parse(data[2:])
	return h, data, err
}

func parse(payload []byte) (hello, error) {
	var h hello
	if err := json.Unmarshal(payload, &h); err != nil {
		return hello{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if h.Refused != "" {
		if !h.Refused.known() {
			h.Refused = RefusedOther
		}
		return h, nil
	}
	if h.Purpose != Purpose {
		return hello{}, fmt.Errorf("%w: purpose %q instead of %q", ErrProtocol, h.Purpose, Purpose)
	}
	if err := h.Node.Validate(); err != nil {
		return hello{}, fmt.Errorf("%w: %w", ErrProtocol, err)
	}
	if h.Key.IsZero() || h.PeerKey.IsZero() {
		return hello{}, fmt.Errorf("%w: a key is all zero", ErrProtocol)
	}
	return h, nil
}

// secret derives the preshared key from a connection and the two messages on it.
func secret(cs tls.ConnectionState, server, client []byte) (keymgr.PresharedKey, error) {
	h := sha256.New()
	h.Write(server)
	h.Write(client)
	out, err := cs.ExportKeyingMaterial(exporterLabel, h.Sum(nil), len(keymgr.PresharedKey{}))
	if err != nil {
		return keymgr.PresharedKey{}, fmt.Errorf("export secret: %w", err)
	}
	return keymgr.PresharedKey(out), nil
}

// Identity is this node's side of an exchange.
type Identity struct {
	// Node is this node.
	Node keymgr.NodeID
	// Certificate returns this node's certificate with its key. It is called for each
	// connection, because certificates change.
	Certificate func() (*tls.Certificate, error)
	// Authenticate returns the node that a certificate chain (DER, leaf first) is for.
	Authenticate func(chain [][]byte) (keymgr.NodeID, error)
	// Address returns the address of this node from which to ask a peer at another, so that
	// the peer sees one that it knows. Nil, or the zero Addr: the kernel chooses.
	Address func(peer netip.Addr) netip.Addr
}

// config returns the TLS configuration of one connection. The handshake sets peer to the
// node at the other end, or fails.
func (i Identity) config(peer *keymgr.NodeID) (*tls.Config, error) {
	cert, err := i.Certificate()
	if err != nil {
		return nil, err
	}
	return &tls.Config{
		Certificates:           []tls.Certificate{*cert},
		MinVersion:             tls.VersionTLS13,
		CurvePreferences:       []tls.CurveID{tls.X25519MLKEM768},
		NextProtos:             []string{protocol},
		ClientAuth:             tls.RequireAnyClientCert,
		SessionTicketsDisabled: true,
		// There are no host names to compare; VerifyConnection verifies everything.
		InsecureSkipVerify: true,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { return nil, agreeable(h) },
		VerifyConnection:   func(cs tls.ConnectionState) error { return i.verify(cs, peer) },
	}, nil
}

// agreeable refuses a client without our key agreement, with an error of its own.
func agreeable(h *tls.ClientHelloInfo) error {
	if !slices.Contains(h.SupportedCurves, tls.X25519MLKEM768) {
		return fmt.Errorf("%w: it offers %v", ErrDowngrade, h.SupportedCurves)
	}
	return nil
}

func (i Identity) verify(cs tls.ConnectionState, peer *keymgr.NodeID) error {
	switch {
	case cs.CurveID != tls.X25519MLKEM768:
		return fmt.Errorf("%w: key agreement %s", ErrDowngrade, cs.CurveID)
	case cs.NegotiatedProtocol != protocol:
		return fmt.Errorf("%w: protocol %q", ErrProtocol, cs.NegotiatedProtocol)
	case cs.DidResume:
		return fmt.Errorf("%w: resumed session", ErrProtocol)
	}
	var chain [][]byte
	for _, c := range cs.PeerCertificates {
		chain = append(chain, c.Raw)
	}
	id, err := i.Authenticate(chain)
	if errors.Is(err, keymgr.ErrKeyMismatch) || errors.Is(err, keymgr.ErrUnknownNode) {
		return fmt.Errorf("%w: %w", ErrNotYet, err)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCertificate, err)
	}
	*peer = id
	return nil
}

// errIncomplete guards against a library that would not call VerifyConnection.
var errIncomplete = errors.New("peer was not authenticated")
