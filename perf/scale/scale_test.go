// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr/rotation"
)

// TestScenarios plays each scenario with a few nodes and looks whether what must
// happen has happened, and nothing else.
func TestScenarios(t *testing.T) {
	const nodes = 8
	b := bench{observed: 2, window: 10 * time.Second, dir: t.TempDir()}
	if err := b.prepare(t.Context(), nodes); err != nil {
		t.Fatal(err)
	}
	play := func(scenario func() (row, error)) row {
		t.Helper()
		r, err := scenario()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%s: each %+v, first %+v, %v bytes, %v writes, converged %v, rotated %v", r.name, r.each, r.first, r.bytes, r.writes, r.converge, r.rotation)
		return r
	}
	if r := play(func() (row, error) { return b.quiet("nothing", 0) }); r.each.exchanges != 0 || r.writes != 0 || r.bytes != 0 {
		t.Errorf("nothing happens, and costs %d exchanges, %v writes, %v bytes", r.each.exchanges, r.writes, r.bytes)
	}
	if r := play(func() (row, error) { return b.quiet("renewal", 20*time.Second) }); r.each.exchanges == 0 || r.each.passes > 1 || r.writes != 0 {
		t.Errorf("%d renewals cost %d passes, %v writes; want a look each", r.each.exchanges, r.each.passes, r.writes)
	}
	r := play(b.one)
	if r.first.exchanges < nodes-1 || len(r.converge) < nodes-1 || len(r.rotation) != 1 || r.writes != 3 {
		t.Errorf("one rotation: %d exchanges, %d of %d arrived, %v, %v writes", r.first.exchanges, len(r.converge), nodes-1, r.rotation, r.writes)
	}
	least := rotation.TimesFor(rotation.DefaultPeriod)
	if len(r.rotation) == 1 && r.rotation[0] < least.Quiet+least.Propagation {
		t.Errorf("the rotation took %s: less than its times", r.rotation[0])
	}
	if r := play(b.all); r.each.exchanges == 0 || len(r.converge) == 0 || r.writes == 0 {
		t.Errorf("rotations of others: %d exchanges, %d arrived, %v writes", r.each.exchanges, len(r.converge), r.writes)
	}
	if r := play(b.restart); r.each.exchanges < nodes-1 || len(r.converge) != 2*(nodes-1) || len(r.rotation) != 0 {
		t.Errorf("restart: %d exchanges, %d of %d reached, %d made a key at once", r.each.exchanges, len(r.converge), 2*(nodes-1), len(r.rotation))
	}
	if r := play(b.reissue); len(r.converge) == 0 || r.writes == 0 || r.each.exchanges != 0 {
		t.Errorf("renewal of certificates: %d verified, %v writes, %d exchanges", len(r.converge), r.writes, r.each.exchanges)
	}
}
