// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package times

import (
	"testing"
	"time"
)

func TestBoot(t *testing.T) {
	first, err := Boot()
	if err != nil {
		t.Fatal(err)
	}
	second, err := Boot()
	if err != nil {
		t.Fatal(err)
	}
	if apart := second.Sub(first).Abs(); apart > time.Second || !first.Before(time.Now()) {
		t.Errorf("booted at %s and at %s", first, second)
	}
}
