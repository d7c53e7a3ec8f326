// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package hostnet

import (
	"context"
	"fmt"
	"time"

	"github.com/sealane/sealane/overlay"
)

const (
	tableName = "sealane"
	// rewrite is the interval after which the table is written again without a change, in
	// case somebody else flushed it.
	rewrite = time.Minute
)

// masquerade is the table that was written last, and the time of that write.
type masquerade struct {
	text string
	at   time.Time
}

func (h *Host) masquerade(ctx context.Context, m overlay.Masquerade, ports overlay.Ports) error {
	text := transaction(h.nft, m, ports, nil).String()
	if text == h.masq.text && time.Since(h.masq.at) < rewrite {
		return nil
	}
	// Counts go on in the new table. Without the old one, or on failure, they begin again.
	counted, _ := h.Drops(ctx)
	tx := transaction(h.nft, m, ports, counted)
	if err := h.links.Do(func() error { return h.nft.Run(ctx, tx) }); err != nil {
		return fmt.Errorf("write nftables table %s: %w", tableName, err)
	}
	h.masq = masquerade{text: text, at: time.Now()}
	return nil
}
