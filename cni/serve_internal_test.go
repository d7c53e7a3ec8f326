// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni

import (
	"os"
	"regexp"
	"testing"
	"time"
)

// TestDrainEndsBeforeThePodIsKilled: a request that is cut off in the middle leaves a pod
// half connected.
func TestDrainEndsBeforeThePodIsKilled(t *testing.T) {
	chart, err := os.ReadFile("../daemonset/deploy/chart/templates/agent.yaml")
	if err != nil {
		t.Fatal(err)
	}
	match := regexp.MustCompile(`terminationGracePeriodSeconds: (\d+)\n`).FindSubmatch(chart)
	if match == nil {
		t.Fatal("the chart gives the agent no grace")
	}
	grace, err := time.ParseDuration(string(match[1]) + "s")
	if err != nil {
		t.Fatal(err)
	}
	if drainTime > grace/2 {
		t.Errorf("requests may go on for %v of the %v that the agent's pod has", drainTime, grace)
	}
}
