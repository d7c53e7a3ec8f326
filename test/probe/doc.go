// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command probe is a pod of the tests: it answers, asks, counts what arrives,
// and says when. All times are of the machine's clock, which the nodes share.
//
//	probe serve [-control ADDRESS] PORT...        answer on ports by TCP and UDP; take orders by HTTP
//	probe first -out FILE [-seconds N] TARGET...  from the first instruction send to targets, and count what comes
//	probe dial -out FILE TARGET                   from the first instruction make one TCP connection
//
// serve's orders are JSON: POST /try, /flow, /course, /bombard and /seen.
package main
