// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command meter counts what a network loses. One end serves, the other runs: both
// send numbered UDP packets to each other at a steady rate, and a TCP stream each,
// and count what arrives, what comes late, and how long a stream stood still.
//
//	meter serve ADDRESS:PORT
//	meter run [-pps N] [-seconds N] [-direction both|out|in] ADDRESS:PORT
//
// run prints a JSON report of both directions. Rates are packets per second.
package main
