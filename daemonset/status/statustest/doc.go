// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package statustest holds sample reports for the tests of those who read them.
package statustest
