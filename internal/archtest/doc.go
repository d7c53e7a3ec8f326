// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package archtest holds the tests of the shape of the repository: who may
// import whom, which library is behind which door, what every file and every
// exported name must carry, how large things may grow, and that what the
// documents name is there. A rule that is not in here is an opinion.
//
// Everything is read by the test process itself, never by a command that it
// starts, because go test caches a result until a file that the process read
// has changed.
package archtest
