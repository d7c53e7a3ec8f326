// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package opinion asks another implementation of NetworkPolicy, the engine of
// cyclonus, whether it understands policies as Sealane does. It is a module of
// its own, so that what it needs is no part of the product.
package opinion
