// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package agents asks the agents of a cluster's nodes, by their HTTP endpoint or by
// commands that run in their pods.
package agents
