// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"time"

	"github.com/cilium/ebpf/ringbuf"

	"github.com/sealane/sealane/bpf/words"
	"github.com/sealane/sealane/internal/times"
)

// VerdictKind says what became of a flow. Numbers are those of enum
// verdict_kind (src/policy.h).
type VerdictKind uint8

// The kinds of verdict.
const (
	VerdictAllowed      VerdictKind = 1
	VerdictDenied       VerdictKind = 2
	VerdictDryRunDenied VerdictKind = 3 // passed, but would be dropped if dry-run policies were in force
)

// String returns the kind's name in what operators read.
func (k VerdictKind) String() string {
	switch k {
	case VerdictAllowed:
		return "allowed"
	case VerdictDenied:
		return "denied"
	case VerdictDryRunDenied:
		return "dry_run_denied"
	}
	return "unknown"
}

// Verdict is the decision on a flow at its beginning, or the denial of one after policies
// changed.
type Verdict struct {
	Time        time.Time
	Source      netip.AddrPort // end that began the flow; for ICMP echo, ports are the identifier
	Destination netip.AddrPort // other end; the backend if the flow is to a service
	Frontend    netip.AddrPort // address of the service; invalid if there is none
	Protocol    uint8          // as in the IP header
	Kind        VerdictKind
	Reason      Reason // why the flow was denied or, in a dry run, would have been; 0 if allowed
	Lost        uint32 // number of verdicts lost before this one because the ring buffer was full
}

// WatchVerdicts calls f with each verdict until ctx ends. When f does not keep up, verdicts
// are lost and packets never wait; the next verdict says how many were lost. Only one
// caller at a time is allowed.
func (d *Datapath) WatchVerdicts(ctx context.Context, f func(Verdict)) error {
	r, err := ringbuf.NewReader(d.maps.SlVerdicts)
	if err != nil {
		return fmt.Errorf("watch verdicts: %w", err)
	}
	defer context.AfterFunc(ctx, func() { r.Close() })()
	if err := d.setWatched(1); err != nil {
		return errors.Join(err, r.Close())
	}
	boot, err := times.Boot()
	if err != nil {
		return errors.Join(err, r.Close())
	}
	for {
		record, err := r.Read()
		if errors.Is(err, ringbuf.ErrClosed) {
			return d.setWatched(0)
		}
		if err != nil {
			return errors.Join(fmt.Errorf("read verdict: %w", err), d.setWatched(0), r.Close())
		}
		v, err := decodeVerdict(record.RawSample, boot)
		if err != nil {
			return errors.Join(err, d.setWatched(0), r.Close())
		}
		f(v)
	}
}

func (d *Datapath) setWatched(to uint32) error {
	d.tables.Lock()
	defer d.tables.Unlock()
	return d.changeState(func(s *podPolicyState) { s.Watched = to })
}

func decodeVerdict(raw []byte, boot time.Time) (Verdict, error) {
	var v podVerdict
	if err := binary.Read(bytes.NewReader(raw), binary.NativeEndian, &v); err != nil {
		return Verdict{}, fmt.Errorf("read verdict of %d bytes: %w", len(raw), err)
	}
	out := Verdict{
		Time:        boot.Add(time.Duration(v.Time)),
		Source:      netip.AddrPortFrom(words.Addr(v.Src.W), words.Port(v.SrcPort)),
		Destination: netip.AddrPortFrom(words.Addr(v.Dst.W), words.Port(v.DstPort)),
		Protocol:    v.Proto, Kind: VerdictKind(v.Kind), Reason: Reason(v.Reason), Lost: v.Lost,
	}
	if v.FrontendPort != 0 {
		out.Frontend = netip.AddrPortFrom(words.Addr(v.Frontend.W), words.Port(v.FrontendPort))
	}
	return out, nil
}
