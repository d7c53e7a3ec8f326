// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package text

import (
	"strconv"
	"time"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/words"
)

// Revocations renders a report, with ages as of now.
func (t Renderer) Revocations(r status.RevocationReport, now time.Time) string {
	summary := "no list is published yet"
	if r.Number > 0 {
		summary = "list " + strconv.FormatUint(r.Number, 10) + ", issued " + words.Ago(now, r.IssuedAt)
	}
	tb := table{head: []string{"NODE", "STATE", "REASON", "SINCE", "OLD KEYS EXPIRE", "KEYS", "CERTIFICATES", "UID", "MESSAGE"}}
	for _, v := range r.Revocations {
		row := cells(v.Node, string(v.State), v.Reason, words.Ago(now, v.At), words.Ago(now, v.Expires),
			strconv.Itoa(len(v.Keys)), strconv.Itoa(len(v.Serials)), v.UID, orDash(v.Message))
		row[1].tone = map[status.RevocationState]tone{status.Ordered: dubious, status.InForce: bad}[v.State]
		tb.rows = append(tb.rows, row)
	}
	return t.sections(summary+"\n", t.render(tb))
}
