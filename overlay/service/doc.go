// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package service knows which backends stand behind a Service's cluster
// addresses for the pods of one node: what kube-proxy would choose from, as the
// data path needs it. It watches nothing and touches no kernel.
package service
