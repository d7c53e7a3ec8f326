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
	"slices"

	"github.com/sealane/sealane/keymgr"
)

const (
	// protocol is the ALPN name (RFC 7301) of this version.
	protocol = "sealane-pairing/1"
	// Purpose is what the secret is for: the preshared key of a WireGuard lane.
	Purpose = "wireguard-psk"
	// exporterLabel is the label of that purpose (RFC 5705, section 4).
	exporterLabel = "EXPORTER-sealane-wg-psk-v1"
	// maxMessage bounds a message, in bytes.
	maxMessage = 2048
)

// Subject is what a preshared key is agreed on for: one lane between two nodes.
type Subject struct {
	Peer keymgr.NodeID
	// Own and Theirs are the WireGuard keys at the ends of the lane.
	Own, Theirs keymgr.PublicKey
}

// hello is what each end says of the lane; a server that refuses says why instead.
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

// secret derives the preshared key from a connection and what was said on it.
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

// Identity is what an end needs of this node.
type Identity struct {
	Node keymgr.NodeID
	// Certificate is asked for each connection: certificates change.
	Certificate func() (*tls.Certificate, error)
	// Authenticate tells whose a certificate chain (DER, leaf first) is.
	Authenticate func(chain [][]byte) (keymgr.NodeID, error)
}

// config is TLS for one connection. peer receives who is at the other end; without
// it there is no connection.
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
		// There are no names to compare; VerifyConnection does all of it.
		InsecureSkipVerify: true,
		GetConfigForClient: func(h *tls.ClientHelloInfo) (*tls.Config, error) { return nil, agreeable(h) },
		VerifyConnection:   func(cs tls.ConnectionState) error { return i.verify(cs, peer) },
	}, nil
}

// agreeable tells a client that offers something else from any other failure.
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
var errIncomplete = errors.New("nobody was authenticated")
