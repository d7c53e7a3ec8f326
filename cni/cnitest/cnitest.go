// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package cnitest has a cni.Handler for tests that behaves like a node daemon but keeps
// everything in memory.
package cnitest

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"slices"
	"sync"

	"github.com/containernetworking/cni/pkg/types"
	types100 "github.com/containernetworking/cni/pkg/types/100"

	"github.com/sealane/sealane/cni"
)

// ErrUnknown is the error of Check for an attachment that does not exist.
var ErrUnknown = errors.New("pod is not connected")

// Handler is a cni.Handler in memory: Add gives each attachment the next dual-stack
// addresses, and its result does not change until Del or GC. The zero value is ready for
// use.
type Handler struct {
	// Fault, if set, is called at the beginning of each call, which fails with the error
	// that Fault returns. Fault may block until ctx ends.
	Fault func(ctx context.Context, command cni.Command, a cni.Attachment) error

	mu      sync.Mutex // guards the fields below
	pods    map[cni.AttachmentID]connected
	added   int
	working map[cni.AttachmentID]bool
	overlap bool
}

// connected is an attachment and the result of its Add.
type connected struct {
	cni.Attachment
	result *types100.Result
}

var _ cni.Handler = (*Handler)(nil)

// Add implements cni.Handler.
func (h *Handler) Add(ctx context.Context, a cni.Attachment) (*types100.Result, error) {
	defer h.begin(a.ID())()
	if err := h.fault(ctx, cni.CommandAdd, a); err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if pod, ok := h.pods[a.ID()]; ok {
		return pod.result, nil
	}
	if h.pods == nil {
		h.pods = make(map[cni.AttachmentID]connected)
	}
	h.added++
	h.pods[a.ID()] = connected{a, Result(a, h.added)}
	return h.pods[a.ID()].result, nil
}

// Result returns the result of the n-th Add of a Handler.
func Result(a cni.Attachment, n int) *types100.Result {
	host := net.HardwareAddr{0xee, 0xee, 0xee, 0x5e, 0xa1, 0x01}
	pod := net.HardwareAddr{0x0a, 0x58, 10, 244, 1, byte(n + 1)}
	return cni.NewResult(a,
		cni.Device{Name: fmt.Sprint("slp", n), MAC: host, MTU: 1440},
		cni.Device{Name: a.IfName, MAC: pod, MTU: 1440},
		[]cni.IP{
			{
				Addr:    netip.AddrFrom4([4]byte{10, 244, 1, byte(n + 1)}),
				Gateway: netip.AddrFrom4([4]byte{169, 254, 1, 1}),
			},
			{
				Addr:    netip.AddrFrom16([16]byte{0: 0xfd, 7: 1, 15: byte(n + 1)}),
				Gateway: netip.AddrFrom16([16]byte{0: 0xfe, 1: 0x80, 15: 1}),
			},
		})
}

// Del implements cni.Handler.
func (h *Handler) Del(ctx context.Context, a cni.Attachment) error {
	defer h.begin(a.ID())()
	if err := h.fault(ctx, cni.CommandDel, a); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.pods, a.ID())
	return nil
}

// Check implements cni.Handler.
func (h *Handler) Check(ctx context.Context, a cni.Attachment) error {
	defer h.begin(a.ID())()
	if err := h.fault(ctx, cni.CommandCheck, a); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	pod, ok := h.pods[a.ID()]
	if !ok {
		return &cni.Error{Code: types.ErrUnknownContainer, Err: fmt.Errorf("check %s: %w", a.ContainerID, ErrUnknown)}
	}
	if got, want := cni.Addresses(a.Prev), cni.Addresses(pod.result); a.Prev != nil && !slices.Equal(got, want) {
		return fmt.Errorf("check %s: addresses are %v, the runtime says %v", a.ContainerID, want, got)
	}
	return nil
}

// Status implements cni.Handler.
func (h *Handler) Status(ctx context.Context) error {
	return h.fault(ctx, cni.CommandStatus, cni.Attachment{})
}

// GC implements cni.Handler.
func (h *Handler) GC(ctx context.Context, network string, valid []cni.AttachmentID) error {
	if err := h.fault(ctx, cni.CommandGC, cni.Attachment{Network: network}); err != nil {
		return err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	maps.DeleteFunc(h.pods, func(id cni.AttachmentID, pod connected) bool {
		return pod.Network == network && !slices.Contains(valid, id)
	})
	return nil
}

// Attachments returns the connected attachments, sorted by container.
func (h *Handler) Attachments() []cni.Attachment {
	h.mu.Lock()
	defer h.mu.Unlock()
	var all []cni.Attachment
	for _, id := range slices.SortedFunc(maps.Keys(h.pods), compareIDs) {
		all = append(all, h.pods[id].Attachment)
	}
	return all
}

// Overlapped reports whether two calls ever worked on one attachment at once, which
// cni.Serve promises never to cause.
func (h *Handler) Overlapped() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.overlap
}

// begin records that a call works on the attachment, until the returned function is called.
func (h *Handler) begin(id cni.AttachmentID) (end func()) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.working == nil {
		h.working = make(map[cni.AttachmentID]bool)
	}
	h.overlap = h.overlap || h.working[id]
	h.working[id] = true
	return func() {
		h.mu.Lock()
		defer h.mu.Unlock()
		delete(h.working, id)
	}
}

func (h *Handler) fault(ctx context.Context, command cni.Command, a cni.Attachment) error {
	if h.Fault == nil {
		return nil
	}
	return h.Fault(ctx, command, a)
}

func compareIDs(x, y cni.AttachmentID) int {
	return slices.Compare([]string{x.ContainerID, x.IfName}, []string{y.ContainerID, y.IfName})
}
