// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"context"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// freePort is a port that nobody has by TCP now.
func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	return port
}

func TestTry(t *testing.T) {
	port, closed := freePort(t), freePort(t)
	if err := answer(t.Context(), port); err != nil {
		t.Fatal(err)
	}
	o := &orders{ctx: t.Context(), flows: map[string]*flow{}}
	var targets []Target
	for _, network := range []string{"tcp", "udp"} {
		targets = append(targets, Target{network, "127.0.0.1:" + port}, Target{network, "127.0.0.1:" + closed})
	}
	got, err := o.try(Attempts{Targets: targets, Within: 2000})
	if err != nil {
		t.Fatal(err)
	}
	for i, a := range got {
		if open := i%2 == 0; open != strings.Contains(a.Answer, " 127.0.0.1:") || open != (a.Error == "") || open == a.Refused {
			t.Errorf("%v: %+v", targets[i], a)
		}
	}
}

func TestFlow(t *testing.T) {
	port := freePort(t)
	if err := answer(t.Context(), port); err != nil {
		t.Fatal(err)
	}
	o := &orders{ctx: t.Context(), flows: map[string]*flow{}}
	for _, network := range []string{"tcp", "udp"} {
		q := Flow{Target: Target{network, "127.0.0.1:" + port}, Every: 1}
		if _, err := o.begin(q); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		answered := 0
		every(ctx, 5*time.Millisecond, func() {
			c, err := o.flow(q)
			if err != nil {
				t.Fatal(err)
			}
			answered = 0
			for i, at := range c.Answered {
				if at >= c.Sent[i] {
					answered++
				}
			}
			if answered > 10 {
				cancel()
			}
		})
		if answered <= 10 {
			t.Errorf("%s: %d answers", network, answered)
		}
	}
}

func TestRead(t *testing.T) {
	four := append([]byte{0x45, 9: 17, 12: 10, 13: 1, 14: 2, 15: 3, 19: 0}, 0, 1, 0x1b, 0x58)
	six := append([]byte{0x60, 6: 6, 8: 0xfd, 23: 7, 39: 0}, 0, 1, 0, 80, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 4)
	for want, packet := range map[string][]byte{
		"10.1.2.3 udp 7000": four, "10.1.2.3 protocol 17": four[:20], "fd00::7 tcp reset": six, "invalid IP ": six[:39], "invalid IP": nil,
	} {
		source, kind := read(packet)
		if got := source.String() + " " + kind; strings.TrimSpace(got) != strings.TrimSpace(want) {
			t.Errorf("%x: %q, want %q", packet, got, want)
		}
	}
	if a, _ := read(four); a != netip.MustParseAddr("10.1.2.3") {
		t.Error(a)
	}
}
