// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"unicode/utf8"
)

const (
	// MaxRevokedGens is how many revoked generations a statement may list.
	MaxRevokedGens = 32

	maxPayload   = 16 << 10
	maxSignature = 80 // DER of two P-256 integers takes 72 at most
	maxDepth     = 8
	maxKeys      = 2
	maxEndpoints = 8
)

// ParseStatement reads a payload strictly: one JSON object in UTF-8, no key twice
// in any object (in whatever case), nothing after it, within the size limits.
//
// Unknown fields are skipped: during an upgrade, a reader that refused them would
// cut off every node that is newer than itself. A field that must not be skipped
// needs a new StatementType. A field whose name differs from a known one in case
// only is refused, because readers would disagree about it.
func ParseStatement(payload []byte) (Statement, error) {
	if len(payload) > maxPayload {
		return Statement{}, fmt.Errorf("%w: payload of %d bytes, at most %d", ErrTooLarge, len(payload), maxPayload)
	}
	if err := checkJSON(payload); err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	var s Statement
	if err := json.Unmarshal(payload, &s); err != nil {
		return Statement{}, fmt.Errorf("%w: %w", ErrFormat, err)
	}
	if err := s.checkSizes(); err != nil {
		return Statement{}, err
	}
	return s, nil
}

func (s Statement) checkSizes() error {
	switch {
	case len(s.Keys) == 0:
		return fmt.Errorf("%w: keys: none", ErrFormat)
	case len(s.Keys) > maxKeys:
		return fmt.Errorf("%w: keys: %d, at most %d", ErrFormat, len(s.Keys), maxKeys)
	case len(s.RevokedGens) > MaxRevokedGens:
		return fmt.Errorf("%w: revokedGens: %d, at most %d", ErrFormat, len(s.RevokedGens), MaxRevokedGens)
	case len(s.Endpoints) > maxEndpoints:
		return fmt.Errorf("%w: endpoints: %d, at most %d", ErrFormat, len(s.Endpoints), maxEndpoints)
	}
	return nil
}

// checkJSON refuses what encoding/json takes without a word.
func checkJSON(data []byte) error {
	if !utf8.Valid(data) {
		return errors.New("not valid UTF-8")
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := checkValue(dec, 0); err != nil {
		return err
	}
	if _, err := dec.Token(); !errors.Is(err, io.EOF) {
		return errors.New("data after the object")
	}
	return nil
}

// checkValue consumes one value, which at depth 0 must be an object.
func checkValue(dec *json.Decoder, depth int) error {
	tok, err := dec.Token()
	if err != nil {
		return fmt.Errorf("read JSON: %w", err)
	}
	if depth > maxDepth {
		return errors.New("nested too deeply")
	}
	switch tok {
	case json.Delim('{'):
		err = checkObject(dec, depth)
	case json.Delim('['):
		err = checkArray(dec, depth)
	default:
		if depth == 0 {
			return errors.New("not an object")
		}
	}
	return err
}

func checkArray(dec *json.Decoder, depth int) error {
	if depth == 0 {
		return errors.New("not an object")
	}
	for dec.More() {
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

func checkObject(dec *json.Decoder, depth int) error {
	seen := map[string]bool{}
	for dec.More() {
		tok, err := dec.Token()
		if err != nil {
			return fmt.Errorf("read JSON: %w", err)
		}
		name, _ := tok.(string)
		if err := checkName(name); err != nil {
			return err
		}
		folded := strings.ToLower(name)
		if seen[folded] {
			return fmt.Errorf("field %q twice", name)
		}
		seen[folded] = true
		if err := checkValue(dec, depth+1); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

// checkName takes ASCII letters, digits and hyphens, and no other spelling of a
// known field: encoding/json would match it.
func checkName(name string) error {
	if name == "" || !only(name, isAlnum) {
		return fmt.Errorf("field name %q", name)
	}
	for _, fields := range [][]string{statementFields(), revocationFields()} {
		for _, known := range fields {
			if name != known && strings.EqualFold(name, known) {
				return fmt.Errorf("field %q, which is spelled %q", name, known)
			}
		}
	}
	return nil
}

// statementFields are the JSON names in Statement and StatementKey.
func statementFields() []string {
	return []string{
		"type", "trustDomain", "nodeName", "nodeUID", "seq", "prevSeq", "prevHash",
		"issuedAt", "notAfter", "keys", "revokedGens", "endpoints", "pskPort", "psk",
		"podCIDRs", "gen", "wgPub", "notBefore", "ports",
	}
}
