// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"errors"
	"fmt"

	"github.com/containernetworking/cni/pkg/types"
)

var (
	// ErrUnreachable says that no daemon listens on the socket. Nothing has
	// been done.
	ErrUnreachable = errors.New("node daemon is unreachable")
	// ErrInterrupted says that the daemon took a request and did not answer. It
	// may have been carried out or not.
	ErrInterrupted = errors.New("node daemon did not answer")
	// ErrNotReady is what a Handler returns as long as it cannot connect pods:
	// the runtime is told to try again later (ADD), or that the plugin is not
	// available (STATUS).
	ErrNotReady = errors.New("node daemon is not ready")
	// ErrLimited is what Handler.Status returns when existing pods may have
	// lost their network too (CNI error 51).
	ErrLimited = errors.New("network of existing pods may be limited")
	// ErrTooLarge says that a request or response is over MaxMessage bytes.
	ErrTooLarge = errors.New("message is too large")
)

// Error is a failure that the runtime is told with a code and a remedy. Other
// errors reach it with the code that CodeOf finds.
type Error struct {
	// Code is one of the error codes of the CNI specification.
	Code uint
	// Err is the cause; it names the field and the value if input was wrong.
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

// CodeOf returns the CNI error code of err: that of the Error inside it, or the
// one that belongs to a sentinel of this package, or 999 (internal error).
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

// toWire turns err into what the runtime reads. The remedy travels as the
// details, which runtimes append to the message.
func toWire(err error) *types.Error {
	switch e := err.(type) { //nolint:errorlint // not errors.As: what wraps an Error has said more
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
