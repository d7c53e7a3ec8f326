// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/daemonset/enforce"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// reports makes this node's report, anew for each reader.
type reports struct {
	cfg      Config
	network  *network
	enforcer *enforce.Enforcer
	datapath *bpf.Datapath
	links    *nl.Handle
	log      *slog.Logger
}

// inTheClear says what is not encrypted, by design (docs/operations.md).
func inTheClear() []string {
	return []string{"node to node (the nodes' own traffic: kubelet, API server, host network pods among each other)"}
}

func (r *reports) node() status.Node {
	n := status.Node{
		Name: r.cfg.NodeName, Version: r.cfg.Version, Time: time.Now(),
		Ready: r.network.state.isReady(), NotReadyReasons: r.network.state.reasons(),
		Lane:  status.Lane{Kind: string(r.cfg.Lane), Plaintext: r.cfg.Lane == overlay.VXLAN},
		Clear: inTheClear(), Enforcement: r.enforcer.Status(),
	}
	leases := r.network.leases
	n.Pods, n.Addresses = len(leases.Leases()), addressUse(leases.Stats())
	var err error
	if n.QueuedDels, err = delQueue(r.cfg, r.log).Len(); err != nil {
		r.log.Error("queued DELs not counted", "error", err)
	}
	if err := r.counters(&n); err != nil {
		r.log.Error("counters not read", "error", err)
	}
	if v := r.network.seen.Load(); v != nil {
		r.lanes(&n, v)
	}
	if t := r.network.trust; t != nil {
		r.identity(&n, t)
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

func (r *reports) counters(n *status.Node) error {
	c, err := r.datapath.Counters()
	if err != nil {
		return err
	}
	for _, reason := range bpf.Reasons() {
		n.Drops = append(n.Drops, status.Drop{Reason: reason.String(), Packets: c.Drops[reason].Packets, Bytes: c.Drops[reason].Bytes})
	}
	for _, reason := range []bpf.Reason{bpf.ReasonPolicyEgress, bpf.ReasonPolicyIngress} {
		n.Trials = append(n.Trials, status.Drop{Reason: reason.String(), Packets: c.Trials[reason].Packets, Bytes: c.Trials[reason].Bytes})
	}
	for _, p := range bpf.Paths() {
		n.Paths = append(n.Paths, status.Traffic{Path: p.String(), Packets: c.Paths[p].Packets, Bytes: c.Paths[p].Bytes})
	}
	leak, ok, err := r.datapath.LastLeak()
	if err != nil || !ok {
		return err
	}
	device := fmt.Sprintf("#%d", leak.Index)
	if l, err := r.links.LinkByIndex(leak.Index); err == nil {
		device = l.Name
	}
	n.LastLeak = &status.Leak{Source: leak.Source, Destination: leak.Destination, Device: device, Reason: leak.Reason.String()}
	return nil
}

// lanes fills in what the last pass knew, and what the kernel says of it now.
func (r *reports) lanes(n *status.Node, v *view) {
	n.UID, n.PodCIDRs, n.ClusterPodCIDRs, n.Uplinks, n.FromDisk = v.self.UID, v.self.PodCIDRs, v.cluster, v.uplinks, v.fromDisk
	n.Lane.MTU, n.Revocations.Number = v.plan.MTU, v.revocations
	states, err := r.network.lanes.Observe()
	if err != nil {
		r.log.Error("lanes not read", "error", err)
	}
	for _, s := range states {
		n.Lane.Backend = status.Backend(s.Mode)
		n.Lane.Devices = append(n.Lane.Devices, status.Device{Name: s.Device, Port: s.Port})
	}
	live := r.livePaths(states)
	refused := map[string]string{}
	for _, f := range v.plan.Refused {
		if f.Whole {
			refused[f.ID.UID] = f.Reason
		}
	}
	for _, j := range v.peers {
		n.Peers = append(n.Peers, r.peer(j, live, refused[j.node.UID]))
	}
}

// livePaths are the lanes in the kernel, and which of them carry traffic.
type livePaths struct {
	index  rotate.Paths
	active map[string]rotation.Pair // by peer's UID
}

func (r *reports) livePaths(states []overlay.LaneState) livePaths {
	if r.network.trust == nil {
		return livePaths{}
	}
	l := livePaths{index: rotate.NewPaths(r.network.trust.identity.WGKeys().All(), states)}
	if shown := r.network.rotator.Shown(); shown != nil {
		l.active = shown.Decision.Peers
	}
	return l
}

// of returns the lane that carries traffic to a peer, or would; the peer's newest
// key if there is none.
func (l livePaths) of(p keymgr.Peer) (keymgr.PeerKey, *overlay.PeerState) {
	k := p.Keys[len(p.Keys)-1]
	slot := l.active[p.ID.UID].Active
	for _, candidate := range rotate.AllKeys(p) {
		for _, s := range l.index[candidate.Key()] {
			if slot == (rotation.Slot{Own: s.Own, Peer: candidate.Generation()}) {
				return candidate, &s.Peer
			}
		}
	}
	return k, nil
}

func (r *reports) peer(j judged, live livePaths, refused string) status.Peer {
	p := status.Peer{Name: j.node.Name, UID: j.node.UID, State: status.NoLane}
	if r.cfg.Lane == overlay.VXLAN {
		p.State = status.Connected
		if len(j.node.Addresses) > 0 {
			p.Endpoint = j.node.Addresses[0].String()
		}
	}
	if len(j.peer.Keys) > 0 {
		k, s := live.of(j.peer)
		p.Generation, p.PublicKey = k.Generation(), k.Key().String()
		p.Certificate = certificate(j.peer.Certificate)
		p.StatementNotAfter, p.Grace = j.peer.NotAfter, j.peer.Grace
		p.Lanes = len(live.active[j.peer.ID.UID].Install)
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
	case errors.Is(j.err, keymgr.ErrRevoked) && len(j.peer.Keys) == 0:
		p.State, p.Reason = status.Revoked, strings.TrimPrefix(j.err.Error(), keymgr.ErrRevoked.Error()+": ")
	case refused != "":
		p.State, p.Reason = status.Refused, refused
	case errors.Is(j.err, errNoStatement) || errors.Is(j.err, errNoBundle):
		p.Reason = j.err.Error()
	case j.err != nil:
		p.Reason = j.err.Error()
		if len(j.peer.Keys) == 0 {
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

func (r *reports) identity(n *status.Node, t *trust) {
	if hash, ok := t.verifier.Bundle(); ok {
		n.BundleHash = hash.String()
	}
	if info, ok := t.identity.Certificate(); ok {
		n.Certificate = certificate(info)
		n.Certificate.RenewAt = t.identity.RenewAt()
	}
	if all := t.identity.WGKeys().All(); len(all) > 0 {
		k := all[len(all)-1]
		n.Key = status.Key{Generation: k.Generation, PublicKey: k.Public.String(), Since: k.Created}
	}
	n.PostQuantum, n.Pairings = string(r.cfg.PostQuantum), r.network.rotator.Pairings()
	if shown := r.network.rotator.Shown(); shown != nil {
		n.Rotation = status.Rotation{
			State: string(shown.Decision.State), Since: shown.Since, Reason: string(shown.Reason),
			Waiting: r.names(shown.Decision.Waiting), Overdue: shown.Decision.Overdue,
		}
	}
	if signed, ok := t.identity.Last(); ok {
		if s, err := keymgr.ParseStatement(signed.Payload); err == nil {
			n.Statement = status.Statement{Sequence: s.Seq, IssuedAt: s.IssuedAt, NotAfter: s.NotAfter}
		}
	}
	if l, ok := t.verifier.Revocations(); ok {
		n.Revocations.IssuedAt = l.IssuedAt
	}
	n.Revocations.Revoked = t.revokedFor()
	n.Refused, n.Discontinuities = t.judge.refusedSoFar(), t.judge.alarmsSoFar()
}

// names of nodes by their UIDs.
func (r *reports) names(uids []string) []string {
	var out []string
	if v := r.network.seen.Load(); v != nil {
		for _, j := range v.peers {
			if slices.Contains(uids, j.node.UID) {
				out = append(out, j.node.Name)
			}
		}
	}
	return out
}
