// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cacmd

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"github.com/sealane/sealane/cmd/sealane/internal/cli"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/status/words"
	"github.com/sealane/sealane/keymgr/rootchange"
)

const (
	// pollPeriod is the interval at which progress is read.
	pollPeriod = time.Second
	// youngestRoot is by how much a root's validity begins before it was made; a
	// request must be younger than the root that it wants replaced.
	youngestRoot = 5*time.Minute + time.Second
)

// rootRotateOptions are the flags of ca rotate.
type rootRotateOptions struct {
	noWait  bool
	timeout time.Duration
}

func newCARotate(t cli.Terminal, c *cli.Connection) *cobra.Command {
	var o rootRotateOptions
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the root without losing a packet, and wait until it is done",
		Long: "Asks the controller for a new root. The controller announces it to every node, then issues from it,\n" +
			"and drops the old root once no certificate leads to it. No node is cut off, not even one that is\n" +
			"down meanwhile. The command waits until the old root is gone, unless --no-wait is given; if you\n" +
			"interrupt it, the rotation continues.",
		Args: cobra.NoArgs,
		RunE: c.With(func(ctx context.Context, client *cluster.Client, _ []string) error {
			return rotateRoot(ctx, client, t, o)
		}),
	}
	cmd.Flags().BoolVar(&o.noWait, "no-wait", false, "request the rotation and return")
	cmd.Flags().DurationVar(&o.timeout, "timeout", 15*time.Minute, "how long to wait")
	return cmd
}

func rotateRoot(ctx context.Context, from authority, t cli.Terminal, o rootRotateOptions) error {
	before, err := readAuthority(ctx, from)
	if err != nil {
		return err
	}
	if before.Mode != "self" {
		return fmt.Errorf("ca.mode is %s: this root was handed in; replace it where it comes from, see docs/operations.md",
			words.Printable(before.Mode))
	}
	old := issuing(before)
	if before.Phase == rootchange.PhaseSteady {
		if err := from.RequestRootRotation(ctx, requestTime(before, old)); err != nil {
			return err
		}
		fmt.Fprintf(t.Out, "requested a new root in place of %s\n", old.Serial)
	} else {
		fmt.Fprintln(t.Out, "a root rotation is already under way")
	}
	if o.noWait {
		return nil
	}
	return awaitRoot(ctx, from, t, rootProgress{old: old.KeyID, begun: before.Phase != rootchange.PhaseSteady, timeout: o.timeout})
}

func issuing(r caReport) rootchange.Status {
	i := slices.IndexFunc(r.Roots, func(s rootchange.Status) bool { return s.State == rootchange.Issuing })
	if i < 0 {
		return rootchange.Status{}
	}
	return r.Roots[i]
}

// requestTime is now, or as much later as this clock is behind that of the
// controller or of who asked before.
func requestTime(r caReport, root rootchange.Status) time.Time {
	at := time.Now()
	if least := root.NotBefore.Add(youngestRoot); at.Before(least) {
		at = least
	}
	if last, err := time.Parse(time.RFC3339, r.request); err == nil && !at.Truncate(time.Second).After(last) {
		at = last.Add(time.Second)
	}
	return at
}

// rootProgress is what has been printed of a root rotation.
type rootProgress struct {
	old     string // key identifier of the root that issued at the start
	begun   bool
	timeout time.Duration
	told    string
}

var errUnfinished = errors.New("the root rotation has not finished; it continues without this command")

func awaitRoot(ctx context.Context, from authority, t cli.Terminal, p rootProgress) error {
	limited, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	tick := time.NewTicker(pollPeriod)
	defer tick.Stop()
	for {
		r, err := readAuthority(limited, from)
		if err == nil && p.tell(t, r) {
			return nil
		}
		select {
		case <-limited.Done():
			if ctx.Err() == nil && !p.begun {
				return fmt.Errorf("%w: the controller has not begun within %v: is it running?", errUnfinished, p.timeout)
			}
			return fmt.Errorf("%w: %s", errUnfinished, p.told)
		case <-tick.C:
		}
	}
}

// tell prints what is new, and reports whether the rotation is done.
func (p *rootProgress) tell(t cli.Terminal, r caReport) bool {
	if r.Phase != rootchange.PhaseSteady {
		p.begun = true
	}
	text := "phase " + words.Printable(string(r.Phase))
	if n := len(r.Waits); n > 0 {
		text += fmt.Sprintf(", waiting for %d of %d nodes: %s, which %s",
			n, r.Nodes, words.Printable(r.Waits[0].Node), words.Printable(r.Waits[0].Reason))
	}
	now := issuing(r)
	done := r.Phase == rootchange.PhaseSteady && (now.KeyID != p.old || p.begun)
	if text != p.told && p.begun {
		fmt.Fprintf(t.Out, "%s %s\n", time.Now().UTC().Format(time.TimeOnly), text)
	}
	p.told = text
	if done {
		fmt.Fprintf(t.Out, "the root is %s, valid until %s\n", now.Serial, day(now.NotAfter))
	}
	return done
}
