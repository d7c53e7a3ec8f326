// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
)

// window is how far back issued certificates count.
const window = time.Hour

// history remembers which certificates were issued in the last hour. A new
// leader learns them from the answered requests, which agents cannot remove and
// Kubernetes keeps for an hour; what this leader issues it knows before its
// cache does.
type history struct {
	issued map[string]map[string]time.Time // by node UID, by request UID
}

func newHistory() *history { return &history{issued: map[string]map[string]time.Time{}} }

// learn takes in what was answered before and forgets what is too old to count.
func (h *history) learn(requests []kube.Request, now time.Time) {
	for _, r := range requests {
		uid := r.Extra[ca.ExtraNodeUID]
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

// times returns when certificates were issued to a node, but for the request
// that is being judged: a try whose answer got lost must not count against the
// next try of the same.
func (h *history) times(nodeUID, requestUID string) []time.Time {
	var out []time.Time
	for request, t := range h.issued[nodeUID] {
		if request != requestUID {
			out = append(out, t)
		}
	}
	return out
}
