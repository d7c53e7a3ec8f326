// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command verdict reads the output of go test -json on its standard input,
// shows one line per package while the tests run and everything that a failed
// test printed, and ends with the totals alone on a line:
//
//	812 passed, 0 failed, 3 skipped
//
// It exits with 1 if a test failed, a package did not build or no test ran.
// Skipped tests are listed with their reasons, since a skip that nobody sees
// hides a missing feature.
package main

import (
	"fmt"
	"io"
	"os"
)

func main() {
	if err := run(os.Args[1:], os.Stdin, os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "verdict:", err)
		os.Exit(1)
	}
}

func run(args []string, in io.Reader, out io.Writer) error {
	if len(args) > 0 {
		return fmt.Errorf("unexpected argument %q: it reads go test -json from its standard input", args[0])
	}
	s := newSummary(out)
	if err := s.read(in); err != nil {
		return fmt.Errorf("read test events: %w", err)
	}
	s.printSkips()
	fmt.Fprintln(out, s.totals())
	return s.err()
}
