// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agents

import (
	"bytes"
	"errors"
	"io"

	"github.com/sealane/sealane/daemonset/kube"
)

// Where and how to run the agent's own commands.
const (
	Container = "sealaned"
	Program   = "/usr/bin/sealaned"
)

// WithStderr replaces the error of a command by what the command itself said about
// its failure. A command that was to run until it is stopped must not succeed: nil
// becomes [io.ErrUnexpectedEOF].
func WithStderr(err error, stderr *bytes.Buffer) error {
	text := bytes.TrimSpace(stderr.Bytes())
	var exit *kube.ExitError
	switch {
	case errors.As(err, &exit) && len(text) > 0:
		return errors.New(string(text))
	case err == nil:
		return io.ErrUnexpectedEOF
	}
	return err
}
