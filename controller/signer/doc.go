// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package signer answers the certificate requests of nodes: it gives each
// applicant a turn, approves or denies each request on facts that it reads from
// the API server for that very decision, and issues the certificate.
package signer
