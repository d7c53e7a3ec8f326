// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import (
	"cmp"
	"slices"
	"strings"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/approval"
)

// maxWaiting is how many requests of one applicant may wait. An agent waits for
// one at a time; a few more come from agents that died before they withdrew theirs.
const maxWaiting = 3

// queue orders requests. However many there are, each applicant has its turn, and
// one that asks a thousand times has no more turns than the others.
type queue struct {
	// served counts the turns of all applicants.
	served uint64
	// lastServed is, by applicant, the value of served at its last turn; zero if
	// it had none.
	lastServed map[string]uint64
	// decided holds requests, by UID, as they stand after this leader decided on
	// them, until its cache shows the same.
	decided map[string]kube.Request
}

func newQueue() *queue {
	return &queue{lastServed: map[string]uint64{}, decided: map[string]kube.Request{}}
}

// refresh replaces requests that the cache still shows as pending by what was
// decided, so that nothing is decided twice and no key is given away twice.
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

// plan returns one request of each applicant, beginning with the applicant that
// has waited longest for a turn, and the surplus of applicants that have too
// many. An agent waits for its newest request. Requests come oldest first.
func (q *queue) plan(pending []kube.Request) (next, surplus []kube.Request) {
	byApplicant, last := map[string][]kube.Request{}, map[string]uint64{}
	for _, r := range pending {
		a := applicant(r)
		byApplicant[a] = append(byApplicant[a], r)
		last[a] = q.lastServed[a]
	}
	q.lastServed = last
	for _, r := range pending { // not over the map, to keep the order
		mine := byApplicant[applicant(r)]
		if newest := mine[len(mine)-1]; newest.UID == r.UID {
			next = append(next, r)
			surplus = append(surplus, mine[:max(0, len(mine)-maxWaiting)]...)
		}
	}
	slices.SortStableFunc(next, func(a, b kube.Request) int {
		return cmp.Compare(q.lastServed[applicant(a)], q.lastServed[applicant(b)])
	})
	return next, surplus
}

// serve records that an applicant has had its turn, whatever the outcome.
func (q *queue) serve(r kube.Request) {
	q.served++
	q.lastServed[applicant(r)] = q.served
}

// applicant returns who made a request, as the API server knows it: user and
// node, so that no other pod on a node takes the agent's turn.
func applicant(r kube.Request) string {
	return r.Username + " " + strings.Join(r.Extra[approval.ExtraNodeUID], " ")
}
