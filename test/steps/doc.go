// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package steps tests the script beside it, which runs the steps of .ci/run and test/full/run.
package steps
