// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"encoding/binary"
	"hash/fnv"
	"slices"
	"time"
)

// node decides on this node's own keys, once the peers are decided on.
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

// due says why the only key should be followed by another now.
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

// compromised tells whether somebody else may have an own key.
func (in Input) compromised(k Key) bool {
	return !in.Compromised.IsZero() && !k.Since.After(in.Compromised) && !sameSecond(k.Compromised, in.Compromised)
}

// sameSecond compares requests as finely as they are kept with keys.
func sameSecond(a, b time.Time) bool { return a.Unix() == b.Unix() }

// dueAt is at 70–90 % of the period, by a lot that a restart does not draw again.
func (m *Machine) dueAt(k Key) time.Time {
	if m.cfg.Times.Period == 0 {
		return k.Since.Add(1<<63 - 1)
	}
	share := 0.7 + 0.2*m.lot("", k.Generation)
	return k.Since.Add(time.Duration(share * float64(m.cfg.Times.Period)))
}

// dueAfterBoot is when a key from before a boot is replaced, by a lot that a restart
// does not draw again. Where the power was away, everybody's key is from before.
func (m *Machine) dueAfterBoot(boot time.Time, k Key) time.Time {
	return boot.Add(time.Duration(m.lot("boot", k.Generation) * float64(m.cfg.Times.AfterBoot)))
}

// lot is a number from [0, 1) that follows from node and key, another one for each
// purpose.
func (m *Machine) lot(purpose string, generation uint64) float64 {
	h := fnv.New32a()
	h.Write([]byte(m.cfg.Self))
	h.Write(binary.BigEndian.AppendUint64([]byte(purpose), generation))
	return float64(h.Sum32()) / (1 << 32)
}

// prove waits in Published until the old key can be withdrawn.
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
	// A daemon that has just started has seen nobody yet.
	if in.Now.Sub(m.start) < m.cfg.Times.Quiet {
		return
	}
	d.State, d.Publish = Retiring, []uint64{newest.Generation}
}

// retire removes the old key when the news of its withdrawal has spread; at once
// if others may have it.
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
	// Who came back meanwhile may have found the old key first, and each end leaves
	// it by itself.
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

// holding lists the peers that are alive and between which and this node the old key
// is still in use: one end has not proved the newest, or has not left the old one.
func (m *Machine) holding(in Input, pairs map[string]Pair, old, newest Key) (uids []string) {
	isOld := func(s Slot) bool { return s.Own == old.Generation }
	isNew := func(s Slot) bool { return s.Own == newest.Generation }
	for _, p := range in.Peers {
		mem := m.peers[p.UID]
		left := isNew(pairs[p.UID].Active) && proven(p.Paths, newest.Generation) &&
			mem.left(in.Now, m.cfg.Times.Quiet, isOld, isNew)
		if in.Now.Sub(mem.heard) < sessionEnd && !left {
			uids = append(uids, p.UID)
		}
	}
	return uids
}

func proven(paths []Path, own uint64) bool {
	return slices.ContainsFunc(paths, func(p Path) bool { return p.Own == own && !p.Handshake.IsZero() })
}

// left tells whether the peer has left the old slots for the new ones. Silence alone
// is no proof, for a peer may be too busy to send: something must have arrived by a
// new one since, or the silence be long.
func (m *memory) left(now time.Time, enough time.Duration, isOld, isNew func(Slot) bool) bool {
	var lastOld, lastNew time.Time
	for slot, t := range m.paths {
		switch {
		case isOld(slot):
			lastOld = latest(lastOld, t.first, t.arrived)
		case isNew(slot):
			lastNew = latest(lastNew, t.arrived)
		}
	}
	silence := now.Sub(lastOld)
	return silence >= enough && lastNew.After(lastOld) || silence >= longSilence*enough
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }
