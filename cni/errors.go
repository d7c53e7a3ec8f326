// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

var (
	// ErrUnreachable means that no daemon listens on the socket. Nothing has been done.
	ErrUnreachable = errors.New("node daemon is unreachable")
	// ErrInterrupted means that the daemon received a request and did not answer. It may or
	// may not have carried the request out.
	ErrInterrupted = errors.New("node daemon did not answer")
	// ErrNotReady is the error of a Handler that cannot connect pods yet: Serve tells the
	// runtime to try again later (ADD), or that the plugin is not available (STATUS).
	ErrNotReady = errors.New("node daemon is not ready")
	// ErrLimited is the error of Handler.Status when existing pods may have lost their
	// network too (CNI error 51).
	ErrLimited = errors.New("network of existing pods may be limited")
	// ErrTooLarge means that a request or response is larger than MaxMessage bytes.
	ErrTooLarge = errors.New("message is too large")
)

// Error is a failure that reaches the runtime with a code and a remedy. Other errors reach
// it with the code that CodeOf finds.
type Error struct {
	// Code is one of the error codes of the CNI specification.
	Code uint
	// Err is the cause; if input was wrong, it names the field and the value.
	Err error
	// Remedy tells the operator what to do about it. May be empty.
	Remedy string
}

// Error returns the cause and the remedy.
func (e *Error) Error() string {
	if e.Remedy == "" {
		return e.Err.Error()
	}
	return fmt.Sprintf("%v; %s", e.Err, e.Remedy)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// CodeOf returns the CNI error code of err: that of the Error inside it, else the code of
// the sentinel of this package that it wraps, else 999 (internal error).
func CodeOf(err error) uint {
	var own *Error
	var wire *types.Error
	switch {
	case errors.As(err, &own):
		return own.Code
	case errors.As(err, &wire):
		return wire.Code
	case errors.Is(err, ErrNotReady), errors.Is(err, ErrUnreachable), errors.Is(err, ErrInterrupted):
		return types.ErrTryAgainLater
	case errors.Is(err, ErrLimited):
		return types.ErrLimitedConnectivity
	}
	return types.ErrInternal
}

// toWire converts err to the form that the runtime reads. The remedy becomes the details,
// which runtimes append to the message.
func toWire(err error) *types.Error {
	switch e := err.(type) { //nolint:errorlint // not errors.As: an error that wraps an Error says more
	case *Error:
		return types.NewError(e.Code, e.Err.Error(), e.Remedy)
	case *types.Error:
		return e
	}
	return types.NewError(CodeOf(err), err.Error(), "")
}

// invalid returns an Error about input: what is wrong, and what to do about it.
func invalid(code uint, err error, remedy string) *Error {
	return &Error{Code: code, Err: err, Remedy: remedy}
}
