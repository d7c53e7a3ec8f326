// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ca

// NeedsRenewal reports whether the intermediate is due: Renew replaces it unless the
// root is offline.
func (a *Authority) NeedsRenewal() bool { return a.due(a.current()) }
