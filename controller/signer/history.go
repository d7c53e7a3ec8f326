// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signer

import (
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/approval"
)

// window is how long an issued certificate counts against the rate limit.
const window = time.Hour

// history remembers which certificates were issued in the last hour. A new
// leader learns them from the answered requests, which agents cannot remove and
// Kubernetes keeps for an hour. What this leader issues is in the history before
// it is in the cache.
type history struct {
	issued map[string]map[string]time.Time // by node UID, by request UID
}

func newHistory() *history { return &history{issued: map[string]map[string]time.Time{}} }

// learn adds the answered requests and forgets certificates that are too old to
// count.
func (h *history) learn(requests []kube.Request, now time.Time) {
	for _, r := range requests {
		uid := r.Extra[approval.ExtraNodeUID]
		if len(r.Certificate) == 0 || len(uid) != 1 {
			continue
		}
		if _, known := h.issued[uid[0]][r.UID]; !known {
			h.add(uid[0], r.UID, r.Created)
		}
	}
	for node, times := range h.issued {
		for request, t := range times {
			if now.Sub(t) >= window {
				delete(times, request)
			}
		}
		if len(times) == 0 {
			delete(h.issued, node)
		}
	}
}

func (h *history) add(nodeUID, requestUID string, t time.Time) {
	if h.issued[nodeUID] == nil {
		h.issued[nodeUID] = map[string]time.Time{}
	}
	h.issued[nodeUID][requestUID] = t
}

// times returns when certificates were issued to a node. It leaves out the given
// request, which is being judged: an attempt whose answer got lost must not count
// against the next attempt at the same request.
func (h *history) times(nodeUID, requestUID string) []time.Time {
	var out []time.Time
	for request, t := range h.issued[nodeUID] {
		if request != requestUID {
			out = append(out, t)
		}
	}
	return out
}
