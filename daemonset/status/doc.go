// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package status says how a cluster is doing: the report that each node's
// daemon serves as JSON, the verdict over the reports of all nodes, and both as
// text for people.
//
// It is pure: it asks nobody, reads no clock and knows no Kubernetes. The daemon
// fills a [Node], the CLI collects them into a [Cluster], [Judge] decides.
package status
