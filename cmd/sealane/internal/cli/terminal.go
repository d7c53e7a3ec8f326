// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cli

import (
	"encoding/json"
	"fmt"
	"io"
)

// Terminal is where answers go.
type Terminal struct {
	Out   io.Writer
	Color bool // whether a person reads, on a terminal that shows colours
}

// Say prints a text for people.
func (t Terminal) Say(format string, args ...any) error {
	if _, err := fmt.Fprintf(t.Out, format, args...); err != nil {
		return fmt.Errorf("print answer: %w", err)
	}
	return nil
}

// JSON returns an answer as indented JSON.
func JSON[T any](answer T) (string, error) {
	raw, err := json.MarshalIndent(answer, "", "  ")
	if err != nil {
		return "", fmt.Errorf("encode answer: %w", err)
	}
	return string(raw) + "\n", nil
}
