// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package cli holds what the commands of sealane share: where answers go, how to
// reach the cluster, and the exit statuses.
package cli
