// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam_test

import (
	"testing"
	"time"

	"github.com/sealane/sealane/cni/ipam"
)

func TestOwnerIsMissedOnlyAfterTheGrace(t *testing.T) {
	dir, clock := t.TempDir(), newClock()
	a := open(t, dir, clock, "10.244.1.0/24")
	owner := allocate(t, a, "c1").Owner
	missed := func(seen, want bool) {
		t.Helper()
		if got := a.Missed(owner, seen); got != want {
			t.Errorf("missed = %t, want %t", got, want)
		}
	}
	almost := ipam.DefaultGrace - time.Second
	clock.advance(time.Hour) // the age of the lease does not matter
	missed(false, false)
	clock.advance(almost)
	missed(false, false)
	missed(true, false) // a view with the owner ends the absence
	clock.advance(time.Second)
	missed(false, false)
	clock.advance(almost)
	allocate(t, a, "c1") // a request of the owner does too
	clock.advance(time.Second)
	missed(false, false)
	clock.advance(almost)
	missed(false, false)
	clock.advance(time.Second)
	missed(false, true)
	missed(false, true)

	// Neither another lease of the owner nor another daemon inherits the absence.
	release(t, a, "c1")
	missed(false, false)
	allocate(t, a, "c1")
	missed(false, false)
	clock.advance(time.Hour)
	a = open(t, dir, clock, "10.244.1.0/24")
	missed(false, false)
}

func TestWithoutAGraceOneViewDecides(t *testing.T) {
	a, err := ipam.New(memStore{}, prefixes("10.244.1.0/24"), ipam.Options{Grace: -1})
	if err != nil {
		t.Fatal(err)
	}
	if owner := allocate(t, a, "c1").Owner; !a.Missed(owner, false) || a.Missed(owner, true) {
		t.Error("the owner is missed although it was seen, or not although it was not")
	}
}

func TestReleasedLeaseIsNotStale(t *testing.T) {
	clock := newClock()
	a := open(t, t.TempDir(), clock, "10.244.1.0/24")
	for _, id := range []string{"c1", "c2", "c3"} {
		allocate(t, a, id)
	}
	clock.advance(time.Hour)
	wantStale(t, a, func(l ipam.Lease) bool {
		if l.Owner.ContainerID == "c1" {
			release(t, a, "c2") // its DEL comes while Stale checks others
		}
		return false
	}, "c1", "c3")
}
