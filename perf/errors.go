// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import "errors"

var (
	// ErrUsage means that the command line cannot be understood.
	ErrUsage = errors.New("usage")
	// ErrIperf means that iperf3 ran but measured nothing.
	ErrIperf = errors.New("iperf3")
	// ErrProcStat means that /proc/stat does not look as proc_stat(5) says.
	ErrProcStat = errors.New("unexpected /proc/stat")
	// ErrConflist means that a node has no usable CNI configuration.
	ErrConflist = errors.New("no usable CNI configuration")
	// ErrLab means that the lab does not have what was asked for.
	ErrLab = errors.New("lab")
	// ErrIncomplete means that some cells of the report are empty.
	ErrIncomplete = errors.New("not everything was measured")
	// ErrAnswer means that the other side said something else than it must.
	ErrAnswer = errors.New("unexpected answer")
)
