// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package signal_test

import (
	"testing"

	"github.com/sealane/sealane/internal/signal"
)

func TestRaisedOnceHoweverOften(t *testing.T) {
	s := signal.New()
	for round := range 2 {
		select {
		case <-s:
			t.Fatalf("round %d: raised by nobody", round)
		default:
		}
		for range 3 {
			s.Raise()
		}
		<-s
	}
	select {
	case <-s:
		t.Error("raised three times, received more than once")
	default:
	}
}
