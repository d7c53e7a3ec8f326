// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotation

import (
	"fmt"
	"testing"
	"time"
)

// many is the number of peers that the project is made for.
const many = 5000

// crowd is what a node sees in a large cluster where all is well.
func crowd(own []Key) Input {
	now := time.Unix(1_700_000_000, 0)
	in := Input{Now: now, Ready: own[len(own)-1].Generation, Own: Own{Keys: own}}
	for _, k := range own {
		in.Own.Signed = append(in.Own.Signed, k.Generation)
	}
	in.Own.Announced = in.Own.Signed
	for i := range many {
		pair := Pair{Own: own[0].Generation, Peer: 7}
		in.Peers = append(in.Peers, Peer{
			UID: fmt.Sprintf("uid-of-peer-%d", i), Secrecy: Required,
			Keys:   []Key{{Generation: 7, Since: now.Add(-time.Hour)}},
			Paired: map[Pair]Pairing{pair: {At: now, Client: i%2 == 0}},
			Paths:  []Path{{Pair: pair, Handshake: now, Received: 1, Sent: 1, Preshared: true, Initiates: i%2 == 0}},
		})
	}
	return in
}

func BenchmarkStep(b *testing.B) {
	since := time.Unix(1_700_000_000, 0)
	one := []Key{{Generation: 3, Since: since}}
	for name, own := range map[string][]Key{"steady": one, "rotating": append(one, Key{Generation: 4, Since: since})} {
		b.Run(name, func(b *testing.B) {
			in := crowd(own)
			m := New(Config{Self: "self", Times: TimesFor(DefaultPeriod)})
			b.ReportAllocs()
			for b.Loop() {
				in.Now = in.Now.Add(time.Millisecond)
				if d := m.Step(in); len(d.Peers) != many {
					b.Fatalf("decided on %d peers", len(d.Peers))
				}
			}
		})
	}
}
