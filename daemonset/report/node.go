// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package report tells others how this node is doing: the JSON report that
// operators' tools read, the status of the node's NodeKey, and Events.
package report

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/daemonset/network"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/hostnet"
)

// Datapath is what reports read of the eBPF data path. *bpf.Datapath is one.
type Datapath interface {
	Counters() (bpf.Counters, error)
	LastLeak() (bpf.Leak, bool, error)
}

// Sources is what a report is made from.
type Sources struct {
	View  func() *network.View // nil: no pass yet
	Keys  *network.Keys        // nil: lanes are not encrypted
	Lanes interface {
		Observe() ([]overlay.TunnelState, error)
	}
	Enforcer interface{ Status() status.Enforcement }
	Leases   interface {
		Leases() []ipam.Lease
		Stats() []ipam.PoolStats
	}
	QueuedDels interface{ Len() (int, error) }
	Datapath   Datapath
	Netfilter  interface {
		Drops(context.Context) ([]hostnet.Drop, error)
	} // nil: nothing is dropped there
	Links interface{ LinkByIndex(int) (nl.Link, error) }
	State *readiness.State
}

// Reporter makes reports of this node, a new one for each reader. It is safe for
// concurrent use.
type Reporter struct {
	Name, Version string // of the node, of the build
	Encapsulation overlay.Kind
	PostQuantum   keymgr.PSKMode
	Sources
	Logger *slog.Logger
}

// inTheClear says what is not encrypted, by design (docs/operations.md).
func inTheClear() []string {
	return []string{"node to node (the nodes' own traffic: kubelet, API server, host network pods among each other)"}
}

// Node returns the report. What cannot be read is logged and left out.
func (r *Reporter) Node() status.Node {
	n := status.Node{
		Name: r.Name, Version: r.Version, Time: time.Now(),
		Ready: r.State.Ready(), NotReadyReasons: r.State.Reasons(),
		Encapsulation: status.Encapsulation{Kind: string(r.Encapsulation), Plaintext: r.Encapsulation == overlay.VXLAN},
		Clear:         inTheClear(), Enforcement: r.Enforcer.Status(),
	}
	n.Pods, n.Addresses = len(r.Leases.Leases()), addressUse(r.Leases.Stats())
	var err error
	if n.QueuedDels, err = r.QueuedDels.Len(); err != nil {
		r.Logger.Error("queued DELs not counted", "error", err)
	}
	if err := r.counters(&n); err != nil {
		r.Logger.Error("counters not read", "error", err)
	}
	v := r.View()
	if v != nil {
		r.lanes(&n, v)
	}
	if r.Keys != nil {
		r.identity(&n, r.Keys.Trust.Facts())
		r.rotation(&n, v)
	}
	return n
}

func addressUse(pools []ipam.PoolStats) []status.AddressUse {
	var all []status.AddressUse
	for _, p := range pools {
		family := "ipv6"
		if p.Prefix.Addr().Is4() {
			family = "ipv4"
		}
		all = append(all, status.AddressUse{Family: family, Used: uint64(p.InUse), Size: min(p.Size, 1<<63-1)})
	}
	return all
}

func (r *Reporter) counters(n *status.Node) error {
	c, err := r.Datapath.Counters()
	if err != nil {
		return err
	}
	for _, reason := range bpf.Reasons() {
		n.Drops = append(n.Drops, status.Drop{Reason: reason.String(), Packets: c.Drops[reason].Packets, Bytes: c.Drops[reason].Bytes})
	}
	for _, reason := range []bpf.Reason{bpf.ReasonPolicyEgress, bpf.ReasonPolicyIngress} {
		n.DryRunDrops = append(n.DryRunDrops, status.Drop{Reason: reason.String(), Packets: c.DryRun[reason].Packets, Bytes: c.DryRun[reason].Bytes})
	}
	for _, p := range bpf.Paths() {
		n.Paths = append(n.Paths, status.Traffic{Path: p.String(), Packets: c.Paths[p].Packets, Bytes: c.Paths[p].Bytes})
	}
	if r.Netfilter != nil {
		if err := r.netfilter(n); err != nil {
			r.Logger.Error("netfilter's drops not read", "error", err)
		}
	}
	leak, ok, err := lastLeak(r.Datapath, r.Links)
	if ok {
		n.LastLeak = &leak
	}
	return err
}

// netfilter adds what nftables has dropped to the drops with the same reasons.
func (r *Reporter) netfilter(n *status.Node) error {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	all, err := r.Netfilter.Drops(ctx)
	for _, d := range all {
		i := slices.IndexFunc(n.Drops, func(known status.Drop) bool { return known.Reason == d.Reason })
		if i < 0 {
			i = len(n.Drops)
			n.Drops = append(n.Drops, status.Drop{Reason: d.Reason})
		}
		n.Drops[i].Packets += d.Packets
		n.Drops[i].Bytes += d.Bytes
	}
	return err
}

// lanes fills in what the last pass knew, and what the kernel says of it now.
func (r *Reporter) lanes(n *status.Node, v *network.View) {
	n.UID, n.PodCIDRs, n.ClusterPodCIDRs, n.Uplinks, n.FromDisk = v.Self.UID, v.Self.PodCIDRs, v.ClusterRanges, v.Uplinks, v.FromDisk
	n.Encapsulation.MTU, n.Revocations.Number = v.Plan.MTU, v.Revocations
	states, err := r.Lanes.Observe()
	if err != nil {
		r.Logger.Error("lanes not read", "error", err)
	}
	for _, s := range states {
		n.Encapsulation.Backend = s.Backend
		n.Encapsulation.Devices = append(n.Encapsulation.Devices, status.Device{Name: s.Device, Port: s.Port})
	}
	live := r.livePaths(states)
	refused := map[string]string{}
	for _, f := range v.Plan.Refused {
		if f.Whole {
			refused[f.ID.UID] = f.Reason
		}
	}
	for _, p := range v.Peers {
		n.Peers = append(n.Peers, r.peer(p, live, refused[p.Node.UID]))
	}
}

// livePaths are the lanes in the kernel, and which of them carry traffic.
type livePaths struct {
	index  rotate.Paths
	active map[string]rotation.PeerDecision // by peer's UID
}

func (r *Reporter) livePaths(states []overlay.TunnelState) livePaths {
	if r.Keys == nil {
		return livePaths{}
	}
	l := livePaths{index: rotate.NewPaths(r.Keys.Trust.Identity().WGKeys().All(), states)}
	if shown := r.Keys.Rotator.Shown(); shown != nil {
		l.active = shown.Decision.Peers
	}
	return l
}

// of returns the key and the kernel's state of the lane that carries traffic to a
// peer; without such a lane, the peer's newest key and nil.
func (l livePaths) of(p keymgr.Peer) (keymgr.PeerKey, *overlay.PeerState) {
	k := p.Keys[len(p.Keys)-1]
	slot := l.active[p.ID.UID].Active
	for _, candidate := range p.AllKeys() {
		for _, s := range l.index[candidate.Key()] {
			if slot == (rotation.Pair{Own: s.Own, Peer: candidate.Generation()}) {
				return candidate, &s.Peer
			}
		}
	}
	return k, nil
}

func (r *Reporter) peer(j trust.Result, live livePaths, refused string) status.Peer {
	p := status.Peer{Name: j.Node.Name, UID: j.Node.UID, State: status.NoLane}
	if r.Encapsulation == overlay.VXLAN {
		p.State = status.Connected
		if len(j.Node.Addresses) > 0 {
			p.Endpoint = j.Node.Addresses[0].String()
		}
	}
	if len(j.Peer.Keys) > 0 {
		k, s := live.of(j.Peer)
		p.Generation, p.PublicKey = k.Generation(), k.Key().String()
		p.Certificate = certificate(j.Peer.Certificate)
		p.StatementNotAfter, p.Grace = j.Peer.NotAfter, j.Peer.Grace
		p.GenerationPairs = len(live.active[j.Peer.ID.UID].Install)
		p.Reason = "no preshared key agreed on yet: is TCP between the nodes open?"
		if s != nil {
			p.State, p.Reason, p.Preshared = status.HandshakePending, "", s.Preshared
			p.Endpoint, p.LastHandshake, p.RxBytes, p.TxBytes = s.Endpoint.String(), s.LastHandshake, s.Received, s.Sent
			if !s.LastHandshake.IsZero() {
				p.State = status.Connected
			}
		}
	}
	switch {
	case errors.Is(j.Err, keymgr.ErrRevoked) && len(j.Peer.Keys) == 0:
		p.State, p.Reason = status.Revoked, strings.TrimPrefix(j.Err.Error(), keymgr.ErrRevoked.Error()+": ")
	case refused != "":
		p.State, p.Reason = status.Refused, refused
	case errors.Is(j.Err, trust.ErrNoStatement) || errors.Is(j.Err, trust.ErrNoBundle):
		p.Reason = j.Err.Error()
	case j.Err != nil:
		p.Reason = j.Err.Error()
		if len(j.Peer.Keys) == 0 {
			p.State = status.Refused
		}
	case p.State == status.HandshakePending:
		p.Reason = "no handshake yet: is UDP between the nodes open?"
	}
	return p
}

func certificate(c keymgr.CertificateInfo) status.Certificate {
	return status.Certificate{Serial: c.Serial, Issuer: c.Issuer, NotBefore: c.NotBefore, NotAfter: c.NotAfter}
}

func (r *Reporter) identity(n *status.Node, f trust.Facts) {
	n.BundleHash, n.BundleRefused = f.BundleHash, f.BundleRefused
	if f.Certificate != nil {
		n.Certificate = certificate(*f.Certificate)
		n.Certificate.RenewAt = f.RenewAt
	}
	if k := f.Key; k != nil {
		n.Key = status.Key{Generation: k.Generation, PublicKey: k.Public.String(), Since: k.Created}
	}
	if s := f.Statement; s != nil {
		n.Statement = status.Statement{Sequence: s.Seq, IssuedAt: s.IssuedAt, NotAfter: s.NotAfter}
	}
	n.Revocations.IssuedAt, n.Revocations.Revoked = f.RevocationsIssuedAt, f.RevokedFor
	n.Refused, n.ContinuityWarnings, n.RefusedAddresses = f.Refused, f.ContinuityWarnings, f.RefusedAddresses
}

func (r *Reporter) rotation(n *status.Node, v *network.View) {
	n.PostQuantum, n.Pairings = string(r.PostQuantum), r.Keys.Rotator.Pairings()
	if shown := r.Keys.Rotator.Shown(); shown != nil {
		n.Rotation = status.Rotation{
			State: string(shown.Decision.State), Since: shown.Since, Reason: string(shown.Reason),
			Waiting: names(v, shown.Decision.Waiting), Overdue: shown.Decision.Overdue,
		}
	}
}

// names returns the names of the nodes with the given UIDs, as far as v knows them.
func names(v *network.View, uids []string) []string {
	var out []string
	if v != nil {
		for _, p := range v.Peers {
			if slices.Contains(uids, p.Node.UID) {
				out = append(out, p.Node.Name)
			}
		}
	}
	return out
}
