// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package demo tests what the demo says when it is up.
package demo
