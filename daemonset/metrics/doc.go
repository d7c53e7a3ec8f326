// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package metrics gives a node's report to Prometheus.
//
// A [Collector] makes the metrics out of a [status.Node] at each scrape, so that
// metrics and `sealane status` cannot disagree, and nothing is counted twice.
// docs/metrics.md lists them; a test keeps it in step.
package metrics
