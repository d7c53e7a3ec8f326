// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package keymgr

import (
	"slices"
	"time"
)

// drainingFor is how long Verify returns a withdrawn key. Its owner removes its devices
// within minutes; the rest is for a daemon that was down meanwhile.
const drainingFor = time.Hour

// withdrawn returns the key that the node has withdrawn, if the new statement leaves its
// device free.
func (c *candidate) withdrawn() *WithdrawnKey {
	switch {
	case c.prev == nil || c.prev.rec.Gone:
		return nil
	case c.repeat:
		return c.prev.rec.Withdrawn
	}
	for _, k := range c.prev.stmt.Keys {
		if c.drains(k) {
			return &WithdrawnKey{Key: k, At: c.now}
		}
	}
	if w := c.prev.rec.Withdrawn; w != nil && c.drains(w.Key) {
		return w
	}
	return nil
}

// drains reports whether a key of an earlier statement may stay for a while: it is
// neither listed nor revoked, and no key that is listed wants its device.
func (c *candidate) drains(k StatementKey) bool {
	return !slices.Contains(c.stmt.RevokedGens, k.Generation) && !slices.ContainsFunc(c.stmt.Keys, func(o StatementKey) bool {
		return Parity(o.Generation) == Parity(k.Generation)
	})
}

// draining returns the withdrawn key, after accept.
func (v *Verifier) draining(c *candidate) []PeerKey {
	w := v.nodes[c.live.ID.UID].rec.Withdrawn
	if w == nil || c.now.Sub(w.At) > drainingFor {
		return nil
	}
	return []PeerKey{w.Key.verified()}
}

// claim returns what a node holds: what its statement says, and the key that it has
// withdrawn. Verify still returns that key, so no other node may list it.
func (k *known) claim() Statement {
	s := k.stmt
	if w := k.rec.Withdrawn; w != nil {
		s.Keys = append(slices.Clip(s.Keys), w.Key)
	}
	return s
}
