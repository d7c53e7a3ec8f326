// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
)

// maxWaiting is how many requests of one applicant may wait. An agent waits for
// one at a time; a few more are of agents that died before they took theirs back.
const maxWaiting = 3

// queue says whose request is next. However many requests there are and come,
// each applicant has its turn, and one that asks a thousand times has no more of
// them than the others.
type queue struct {
	turn  uint64
	turns map[string]uint64 // by applicant, when it had its last one
	// decided are requests, by UID, as they stand since this leader decided on
	// them, until its cache shows the same.
	decided map[string]kube.Request
}

func newQueue() *queue { return &queue{turns: map[string]uint64{}, decided: map[string]kube.Request{}} }

// refresh puts what was decided in place of what the cache still shows, so that
// nothing is decided twice and no key is given away twice.
func (q *queue) refresh(all []kube.Request) []kube.Request {
	out, late := slices.Clone(all), map[string]kube.Request{}
	for i, r := range out {
		if d, ok := q.decided[r.UID]; ok && r.Pending() {
			out[i], late[r.UID] = d, d
		}
	}
	q.decided = late
	return out
}

// plan returns one request of each applicant, those first that have not had a
// turn for the longest time, and what some have asked too often. The newest
// request is the one that an agent waits for. Requests come oldest first.
func (q *queue) plan(pending []kube.Request) (next, surplus []kube.Request) {
	of, turns := map[string][]kube.Request{}, map[string]uint64{}
	for _, r := range pending {
		a := applicant(r)
		of[a] = append(of[a], r)
		turns[a] = q.turns[a]
	}
	q.turns = turns
	for _, r := range pending { // not over the map, to keep the order
		mine := of[applicant(r)]
		if newest := mine[len(mine)-1]; newest.UID == r.UID {
			next = append(next, r)
			surplus = append(surplus, mine[:max(0, len(mine)-maxWaiting)]...)
		}
	}
	slices.SortStableFunc(next, func(a, b kube.Request) int {
		return cmp.Compare(q.turns[applicant(a)], q.turns[applicant(b)])
	})
	return next, surplus
}

// serve notes that an applicant has its turn, whatever comes of it.
func (q *queue) serve(r kube.Request) {
	q.turn++
	q.turns[applicant(r)] = q.turn
}

// applicant is who asks, as the API server knows it: user and node, so that no
// other pod on a node asks in the agent's turn.
func applicant(r kube.Request) string {
	return r.Username + " " + strings.Join(r.Extra[ca.ExtraNodeUID], " ")
}
