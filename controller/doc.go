// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package controller runs the cluster's side of Sealane's keys. It elects a leader,
// which keeps the certificate authority (controller/authority), answers the
// certificate requests of nodes (controller/signer), publishes the revocation list
// and removes the NodeKeys of nodes that are gone
// (controller/revocation).
//
// The leader decides on facts that it reads from the API server for that very
// decision, and all that it must remember is stored in the API server: a new leader
// continues where the last one stopped, and any pass may be repeated at any time.
package controller
