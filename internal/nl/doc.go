// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package nl is the only package that speaks rtnetlink. A Handle is bound to one network
// namespace for its whole life, uses netip types, treats "already there" and "already gone"
// as success where that is idempotent, and repeats dumps that the kernel reports as
// interrupted.
//
// Every function either succeeds or returns an error that wraps one of the
// package's sentinels when the cause is one of them. A Handle may be used by
// several goroutines at once.
package nl
