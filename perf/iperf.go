// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"encoding/json"
	"fmt"
)

// iperfReport is what is used of `iperf3 --json`.
type iperfReport struct {
	Error string `json:"error"`
	End   struct {
		Received struct {
			Bytes         float64 `json:"bytes"`
			BitsPerSecond float64 `json:"bits_per_second"`
		} `json:"sum_received"`
		Sum struct { // of UDP
			Seconds float64 `json:"seconds"`
			Packets float64 `json:"packets"`
			Lost    float64 `json:"lost_packets"`
		} `json:"sum"`
	} `json:"end"`
}

func parseIperf(text []byte) (iperfReport, error) {
	var r iperfReport
	if err := json.Unmarshal(text, &r); err != nil {
		return r, fmt.Errorf("read report of iperf3: %w", err)
	}
	if r.Error != "" {
		return r, fmt.Errorf("%w: %s", ErrIperf, r.Error)
	}
	return r, nil
}

// packetRate returns the packets per second that arrived.
func (r iperfReport) packetRate() (float64, error) {
	sum := r.End.Sum
	if sum.Seconds <= 0 || sum.Packets <= 0 {
		return 0, fmt.Errorf("%w: no packets in %g s", ErrIperf, sum.Seconds)
	}
	return (sum.Packets - sum.Lost) / sum.Seconds, nil
}
