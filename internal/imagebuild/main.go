// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Command imagebuild builds Sealane's container image without a container
// engine: it compiles the programs, takes nft and its libraries out of Debian's
// packages, and writes one archive that containerd, Docker, Podman and
// registry tools read alike.
//
// The same commit, compiler and Debian packages give the same bytes: files are
// sorted, owned by root, and dated by SOURCE_DATE_EPOCH.
package main

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// options are what make image passes on.
type options struct {
	name      string // full name of the image, with its tag
	platforms []string
	out       string
	cache     string
	date      time.Time // of every file and of the image
	version   string    // that the programs report
	revision  string    // commit, for the label
}

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	log := slog.New(slog.NewTextHandler(os.Stderr, nil))
	opts, err := parse(os.Args[1:], os.Getenv("SOURCE_DATE_EPOCH"))
	if err == nil {
		err = build(ctx, opts, log)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "imagebuild:", err)
		os.Exit(1)
	}
}

// parse reads the command line; epoch is the value of SOURCE_DATE_EPOCH, in
// seconds since 1970 (https://reproducible-builds.org/specs/source-date-epoch).
func parse(args []string, epoch string) (options, error) {
	opts := options{date: time.Unix(0, 0).UTC()}
	flags := flag.NewFlagSet("imagebuild", flag.ContinueOnError)
	flags.StringVar(&opts.name, "name", "ghcr.io/sealane/sealane:dev", "`name` of the image, with its tag")
	flags.StringVar(&opts.out, "out", "dist/sealane-image.tar", "archive to write")
	flags.StringVar(&opts.cache, "cache", ".cache/image", "`folder` for Debian's unpacked packages")
	flags.StringVar(&opts.version, "version", "dev", "version that the programs report")
	flags.StringVar(&opts.revision, "revision", "", "commit that the image is built from")
	platforms := flags.String("platforms", "linux/amd64", "platforms, separated by spaces: linux/amd64, linux/arm64")
	if err := flags.Parse(args); err != nil {
		return options{}, err
	}
	opts.platforms = strings.Fields(*platforms)
	for _, p := range opts.platforms {
		if _, ok := triplets[strings.TrimPrefix(p, "linux/")]; !ok {
			return options{}, fmt.Errorf("platform %q: want linux/amd64 or linux/arm64", p)
		}
	}
	if len(opts.platforms) == 0 {
		return options{}, fmt.Errorf("-platforms is empty")
	}
	if epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return options{}, fmt.Errorf("SOURCE_DATE_EPOCH %q is not a number of seconds", epoch)
		}
		opts.date = time.Unix(seconds, 0).UTC()
	}
	return opts, nil
}
