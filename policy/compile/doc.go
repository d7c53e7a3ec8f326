// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package compile turns pods, namespaces and policies into [policy.Tables], and
// says after each change which entries of them differ.
//
// [Compiler] asks tiers of policies, each an [Evaluator], what a pod may do, and
// knows by itself what the answers mean for the tables: which identities and
// addresses rules are about, which numbers things have, and in which steps one
// state becomes the next.
package compile
