// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package canonical checks that addresses and ranges are written in their one canonical
// form, so that equal ones compare equal.
package canonical

import "net/netip"

// Address reports whether a is a valid address without a zone that is not an IPv4 address
// in IPv6 form.
func Address(a netip.Addr) bool { return a.IsValid() && a.Zone() == "" && !a.Is4In6() }

// Prefix reports whether p is a valid range without host bits that is not an IPv4 range in
// IPv6 form.
func Prefix(p netip.Prefix) bool { return p.IsValid() && p == p.Masked() && !p.Addr().Is4In6() }
