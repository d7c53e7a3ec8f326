// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package bundle gives the trust bundle continuity: the authority signs which roots are
// trusted, and a node that trusts some roots takes others only if an issuer below one of
// its own says so. Whoever can write where the bundle is published can hold a change up,
// and can neither add a root nor take one away.
//
// It does no input or output.
package bundle
