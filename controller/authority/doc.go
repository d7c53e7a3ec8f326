// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package authority looks after the certificate authority of the cluster: it
// opens the CA of the configured mode, renews its intermediate, moves a change
// of roots from phase to phase, and keeps the published trust bundle equal to
// what the CA says.
package authority
