// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"context"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Handler does the work behind the CNI commands. Serve calls it from many
// goroutines, but never twice at once for the same attachment. An error reaches
// the runtime with the code that CodeOf finds in it.
type Handler interface {
	Attacher
	// Status returns nil if an Add would work now, else ErrNotReady or
	// ErrLimited with the reason.
	Status(ctx context.Context) error
	// GC removes every attachment of the network that is not among valid.
	// Attachments of other networks stay.
	GC(ctx context.Context, network string, valid []AttachmentID) error
}

// Attacher is the part of a Handler that concerns one attachment.
type Attacher interface {
	// Add connects a pod and returns when its network works and is guarded.
	// It is idempotent: called again for what is connected it returns the same
	// result. After an error, or when ctx ends first, nothing is left behind.
	Add(ctx context.Context, a Attachment) (*types100.Result, error)
	// Del removes every trace of the attachment; what never was is no error.
	// After an error the plugin keeps the request on disk for Queue.Drain.
	Del(ctx context.Context, a Attachment) error
	// Check returns an error that says what differs from what Add made.
	Check(ctx context.Context, a Attachment) error
}
