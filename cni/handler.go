// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"context"

	types100 "github.com/containernetworking/cni/pkg/types/100"
)

// Handler does the work behind the CNI commands. Serve calls it from many goroutines, but
// never concurrently for the same attachment. An error reaches the runtime with the code
// that CodeOf finds in it.
type Handler interface {
	Attacher
	// Status returns nil if an Add would work now, else an error that wraps ErrNotReady or
	// ErrLimited and gives the reason.
	Status(ctx context.Context) error
	// GC removes every attachment of the network that is not in valid. Attachments of other
	// networks stay.
	GC(ctx context.Context, network string, valid []AttachmentID) error
}

// Attacher is the part of a Handler that concerns one attachment.
type Attacher interface {
	// Add connects a pod and returns when the pod's network works and its policies are
	// enforced. It is idempotent: for a connected pod it returns the same result again.
	// After an error, or when ctx ends first, nothing is left behind.
	Add(ctx context.Context, a Attachment) (*types100.Result, error)
	// Del removes every trace of the attachment; an unknown attachment is no error. After
	// an error the plugin keeps the request on disk for Queue.Drain.
	Del(ctx context.Context, a Attachment) error
	// Check returns an error that describes each difference from what Add made.
	Check(ctx context.Context, a Attachment) error
}
