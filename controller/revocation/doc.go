// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package revocation keeps the published revocation list as Revocation objects and
// deleted nodes require. It publishes the list and its CRL, keeps a copy that only
// controllers can write, and reports to each Revocation that it is carried out.
//
// The list itself follows from the last one by a pure function, in keymgr/revocation.
package revocation
