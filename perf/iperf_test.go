// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"errors"
	"math"
	"testing"
)

func TestParseIperf(t *testing.T) {
	r, err := parseIperf([]byte(`{"end": {"sum_received": {"seconds": 2, "bytes": 2.5e9, "bits_per_second": 1e10}}}`))
	if err != nil || r.End.Received.Bytes != 2.5e9 || r.End.Received.BitsPerSecond != 1e10 {
		t.Errorf("TCP: got %+v, %v", r, err)
	}
	r, err = parseIperf([]byte(`{"end": {"sum": {"seconds": 2, "packets": 1000, "lost_packets": 200}}}`))
	if err != nil {
		t.Fatal(err)
	}
	if rate, err := r.packetRate(); err != nil || math.Abs(rate-400) > 1e-9 {
		t.Errorf("UDP: got %g packets/s, %v", rate, err)
	}
}

func TestParseIperfErrors(t *testing.T) {
	if _, err := parseIperf([]byte(`{"error": "unable to connect to server"}`)); !errors.Is(err, ErrIperf) {
		t.Errorf("its error: got %v", err)
	}
	if _, err := parseIperf([]byte(`iperf3: oops`)); err == nil {
		t.Error("no JSON: no error")
	}
	r, err := parseIperf([]byte(`{"end": {}}`))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := r.packetRate(); !errors.Is(err, ErrIperf) {
		t.Errorf("no packets: got %v", err)
	}
}

func FuzzParseIperf(f *testing.F) {
	f.Add([]byte(`{"end": {"sum": {"seconds": 2, "packets": 1000, "lost_packets": 200}, "sum_received": {"bytes": 1}}}`))
	f.Add([]byte(`{"error": "busy"}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		r, err := parseIperf(text)
		if err != nil {
			return
		}
		if rate, err := r.packetRate(); err == nil && math.IsNaN(rate) {
			t.Errorf("the rate is no number")
		}
	})
}
