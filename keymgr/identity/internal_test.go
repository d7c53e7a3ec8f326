// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package identity

import (
	"fmt"
	"testing"
	"time"
)

// Seeds spread renewals evenly over 50 to 70 % of a life.
func TestRenewalTimeSpreads(t *testing.T) {
	from := time.Unix(0, 0)
	var buckets [4]int
	for i := range 4000 {
		share := renewalTime(from, from.Add(1000*time.Hour), fmt.Sprint(i)).Sub(from).Hours() / 1000
		if share < 0.5 || share >= 0.7 {
			t.Fatalf("seed %d renews at %v of its life", i, share)
		}
		buckets[int((share-0.5)/0.05)]++
	}
	for i, n := range buckets {
		if n < 900 || n > 1100 {
			t.Errorf("bucket %d holds %d of 4000, want about 1000", i, n)
		}
	}
}
