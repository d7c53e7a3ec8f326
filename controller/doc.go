// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package controller runs the cluster's side of Sealane's keys: it keeps the
// certificate authority, publishes the trust bundle, approves and signs the
// certificate requests of nodes, and removes what nodes that are gone have
// published.
//
// Of several controllers one works, by election. What it decides, it decides on
// facts read from the API server itself for that very decision, and what it
// must remember lies in the API server: a new leader goes on where the last one
// stopped, and a pass over everything may be repeated at any time.
package controller
