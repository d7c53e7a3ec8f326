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
	"flag"
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
	flags := flag.NewFlagSet("verdict", flag.ContinueOnError)
	totals := flags.String("totals", "", "also write the totals to this `file`")
	if err := flags.Parse(args); err != nil {
		return err
	}
	s := newSummary(out)
	if err := s.read(in); err != nil {
		return fmt.Errorf("read test events: %w", err)
	}
	s.printSkips()
	fmt.Fprintln(out, s.totals())
	if *totals != "" {
		if err := os.WriteFile(*totals, []byte(s.totals()+"\n"), 0o644); err != nil {
			return fmt.Errorf("write totals: %w", err)
		}
	}
	return s.err()
}
