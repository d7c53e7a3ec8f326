// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package rootchange describes a change of roots: its phases, the nodes that each phase waits
// for, and what the controller publishes about its authority.
//
// It holds no key and does no input or output. The authority in keymgr/ca carries the
// change out; the CLI reads the published account.
package rootchange
