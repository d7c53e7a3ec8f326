// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package e2e tests Sealane as the CNI of a real cluster: test/lab's, on this
// machine. test/e2e/run brings clusters up in each flavour and runs the tests
// (build tag e2e) on each; during all of them the wire between the nodes is
// captured, and no packet on it may show a pod's address.
package e2e
