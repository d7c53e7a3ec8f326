// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package metrics

import (
	"fmt"
	"strings"
)

// Markdown lists every metric, for docs/metrics.md.
func Markdown() string {
	var b strings.Builder
	b.WriteString("| metric | type | labels | meaning |\n|---|---|---|---|\n")
	for _, m := range all() {
		kind := "gauge"
		switch {
		case m.counter:
			kind = "counter"
		case m.histogram != nil:
			kind = "histogram"
		}
		labels := ""
		if len(m.labels) > 0 {
			labels = "`" + strings.Join(m.labels, "`, `") + "`"
		}
		fmt.Fprintf(&b, "| `%s` | %s | %s | %s |\n", m.name, kind, labels, m.help)
	}
	return b.String()
}
