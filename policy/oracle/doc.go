// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package oracle reads policies a second time, slowly and plainly: [Decide] says
// of one connection whether it may begin, and which policies and rules say so. The
// tables of package compile are tested against it, and it explains a verdict to an
// operator.
//
// It must not import package compile, nor use what package policy makes of a
// NetworkPolicy: two readings of the API that share their code share its mistakes.
package oracle
