// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"
)

// node decides on this node's own keys, after the decisions on the peers.
func (m *Machine) node(in Input, d *Decision) {
	d.State = Steady
	keys := in.Own.Keys
	if len(keys) == 0 {
		d.Create = First
		return
	}
	newest := keys[len(keys)-1]
	if len(keys) == 1 {
		d.Publish = []uint64{newest.Generation}
		if slices.Contains(in.Own.Announced, newest.Generation) {
			d.Create = m.due(in, newest)
		}
		next := m.dueAt(newest)
		if at := m.dueAfterBoot(in.Boot, newest); newest.Since.Before(in.Boot) && at.Before(next) {
			next = at
		}
		d.Next = min(d.Next, max(next.Sub(in.Now), pollLeast))
		return
	}
	old := keys[len(keys)-2]
	signed := func(k Key) bool { return slices.Contains(in.Own.Signed, k.Generation) }
	switch {
	case signed(newest) && !signed(old): // there is no way back
		m.retire(in, d, old, newest)
	case in.Ready < newest.Generation:
		d.State, d.Publish = Keyed, in.Own.Signed
	case in.compromised(old):
		d.State, d.Publish, d.Revoke = Retiring, []uint64{newest.Generation}, []uint64{old.Generation}
	case !signed(newest):
		d.State, d.Publish = Keyed, []uint64{old.Generation, newest.Generation}
	default:
		m.prove(in, d, old, newest)
	}
}

// due returns why to replace the only key now; "" means that it stays.
func (m *Machine) due(in Input, k Key) Reason {
	switch {
	case in.compromised(k):
		return Compromise
	case k.Since.Before(in.Requested) && !sameSecond(k.Requested, in.Requested):
		return OnDemand
	case k.Since.After(in.Now.Add(clockSkew)):
		return ClockBack
	case k.Since.Before(in.Boot) && !in.Now.Before(m.dueAfterBoot(in.Boot, k)):
		return Boot
	case m.cfg.Times.Period > 0 && !in.Now.Before(m.dueAt(k)):
		return Scheduled
	}
	return ""
}

// compromised reports whether somebody else may have a key of this node.
func (in Input) compromised(k Key) bool {
	return !in.Compromised.IsZero() && !k.Since.After(in.Compromised) && !sameSecond(k.Compromised, in.Compromised)
}

// sameSecond compares times of requests, which are stored with keys in whole seconds.
func sameSecond(a, b time.Time) bool { return a.Unix() == b.Unix() }

// dueAt returns when to replace a key: at 70–90 % of the period, the same after a restart.
func (m *Machine) dueAt(k Key) time.Time {
	if m.cfg.Times.Period == 0 {
		return k.Since.Add(1<<63 - 1)
	}
	share := 0.7 + 0.2*m.draw("", k.Generation)
	return k.Since.Add(time.Duration(share * float64(m.cfg.Times.Period)))
}

// dueAfterBoot returns when to replace a key from before a boot, the same after a
// restart. After a power failure, the keys of all nodes are from before.
func (m *Machine) dueAfterBoot(boot time.Time, k Key) time.Time {
	return boot.Add(time.Duration(m.draw("boot", k.Generation) * float64(m.cfg.Times.AfterBoot)))
}

// draw returns a number in [0, 1) that follows from node, key and purpose.
func (m *Machine) draw(purpose string, generation uint64) float64 {
	h := fnv.New32a()
	h.Write([]byte(m.cfg.Self))
	h.Write(binary.BigEndian.AppendUint64([]byte(purpose), generation))
	return float64(h.Sum32()) / (1 << 32)
}

// prove stays in Published until the old key can be withdrawn.
func (m *Machine) prove(in Input, d *Decision, old, newest Key) {
	d.State, d.Publish = Published, []uint64{old.Generation, newest.Generation}
	if !slices.Equal(in.Own.Announced, d.Publish) {
		return
	}
	d.Waiting = m.holding(in, d.Peers, old, newest)
	if in.Now.Sub(newest.Since) > m.cfg.Times.Limit {
		d.Overdue = len(d.Waiting) > 0
	} else if len(d.Waiting) > 0 {
		return
	}
	// A daemon that has just started has not seen any traffic yet.
	if in.Now.Sub(m.start) < m.cfg.Times.Quiet {
		return
	}
	d.State, d.Publish = Retiring, []uint64{newest.Generation}
}

// retire removes the old key when its withdrawal has spread, or at once if somebody else
// may have it.
func (m *Machine) retire(in Input, d *Decision, old, newest Key) {
	d.State, d.Publish = Retiring, []uint64{newest.Generation}
	wait := m.cfg.Times.Propagation
	if in.compromised(old) {
		d.Revoke, wait = []uint64{old.Generation}, 0
	}
	if !slices.Equal(in.Own.Announced, d.Publish) {
		return
	}
	if m.withdrawn != newest.Generation {
		m.withdrawn, m.withdrawnAt = newest.Generation, in.Now
	}
	// A peer that came back meanwhile may have found the old key first, and each node
	// leaves it by itself.
	if d.Revoke == nil {
		d.Waiting = m.holding(in, d.Peers, old, newest)
	}
	if len(d.Waiting) > 0 {
		wait = m.cfg.Times.Limit
	}
	if in.Now.Sub(m.withdrawnAt) >= wait {
		d.Remove = old.Generation
	}
}

// holding returns the UIDs of the peers that are alive and with which the old key is
// still in use: one of the two nodes has not proved the newest key or left the old one.
func (m *Machine) holding(in Input, pairs map[string]PeerDecision, old, newest Key) (uids []string) {
	isOld := func(s Pair) bool { return s.Own == old.Generation }
	isNew := func(s Pair) bool { return s.Own == newest.Generation }
	for _, p := range in.Peers {
		state := m.peers[p.UID]
		left := isNew(pairs[p.UID].Active) && proven(p.Paths, newest.Generation) &&
			state.left(in.Now, m.cfg.Times.Quiet, isOld, isNew)
		if in.Now.Sub(state.heard) < sessionEnd && !left {
			uids = append(uids, p.UID)
		}
	}
	return uids
}

func proven(paths []Path, own uint64) bool {
	return slices.ContainsFunc(paths, func(p Path) bool { return p.Own == own && !p.Handshake.IsZero() })
}

// left reports whether the peer has left the old pairs for the new ones. Silence on the
// old pairs alone proves nothing, because a peer may be too busy to send: something must
// have arrived on a new pair since, or the silence must be long.
func (m *peerState) left(now time.Time, enough time.Duration, isOld, isNew func(Pair) bool) bool {
	var lastOld, lastNew time.Time
	for pair, t := range m.paths {
		switch {
		case isOld(pair):
			lastOld = latest(lastOld, t.first, t.arrived)
		case isNew(pair):
			lastNew = latest(lastNew, t.arrived)
		}
	}
	silence := now.Sub(lastOld)
	return silence >= enough && lastNew.After(lastOld) || silence >= longSilence*enough
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }
