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
	case !old.Since.After(in.Compromised):
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
	case !in.Compromised.IsZero() && !k.Since.After(in.Compromised):
		return Compromise
	case k.Since.Before(in.Requested):
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
	for _, p := range in.Peers {
		mem := m.peers[p.UID]
		left := d.Peers[p.UID].Active.Own == newest.Generation && proven(p.Paths, newest.Generation) &&
			mem.left(in.Now, old.Generation, newest.Generation, m.cfg.Times.Quiet)
		if mem.alive(in.Now, p.Paths) && !left {
			d.Waiting = append(d.Waiting, p.UID)
		}
	}
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
	if !old.Since.After(in.Compromised) {
		d.Revoke, wait = []uint64{old.Generation}, 0
	}
	if !slices.Equal(in.Own.Announced, d.Publish) {
		return
	}
	if m.withdrawn != newest.Generation {
		m.withdrawn, m.withdrawnAt = newest.Generation, in.Now
	}
	for _, p := range in.Peers { // who came back meanwhile may have found the old key first
		if pair := d.Peers[p.UID]; wait > 0 && pair.Live && pair.Active.Own == old.Generation {
			d.Waiting, wait = append(d.Waiting, p.UID), m.cfg.Times.Limit
		}
	}
	if in.Now.Sub(m.withdrawnAt) >= wait {
		d.Remove = old.Generation
	}
}

func proven(paths []Path, own uint64) bool {
	return slices.ContainsFunc(paths, func(p Path) bool { return p.Own == own && !p.Handshake.IsZero() })
}

// alive tells whether the peer was heard of within the life of a session.
func (m *memory) alive(now time.Time, paths []Path) bool {
	for _, p := range paths {
		if !p.Handshake.IsZero() && now.Sub(p.Handshake) < sessionEnd {
			return true
		}
		if t := m.paths[p.Slot]; !t.arrived.IsZero() && now.Sub(t.arrived) < sessionEnd {
			return true
		}
	}
	return false
}

// left tells whether the peer has left an old key of this node's for the newest.
// Silence alone is no proof, for a peer may be too busy to send: something must have
// arrived by the newest key since, or the silence be long.
func (m *memory) left(now time.Time, old, newest uint64, enough time.Duration) bool {
	var lastOld, lastNew time.Time
	for slot, t := range m.paths {
		switch slot.Own {
		case old:
			lastOld = latest(lastOld, t.first, t.arrived)
		case newest:
			lastNew = latest(lastNew, t.arrived)
		}
	}
	silence := now.Sub(lastOld)
	return silence >= enough && lastNew.After(lastOld) || silence >= longSilence*enough
}

func latest(times ...time.Time) time.Time { return slices.MaxFunc(times, time.Time.Compare) }
