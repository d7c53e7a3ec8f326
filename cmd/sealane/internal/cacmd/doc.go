// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package cacmd holds "sealane ca": the state of the certificate authority, a change
// of roots, and a root that is kept offline.
package cacmd
