// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"fmt"
	"io"
	"time"
)

func (c costs) plus(o costs) costs {
	return costs{
		Decode: c.Decode + o.Decode, Verify: c.Verify + o.Verify, Observe: c.Observe + o.Observe, Decide: c.Decide + o.Decide,
		Plan: c.Plan + o.Plan, Exchange: c.Exchange + o.Exchange, Start: c.Start + o.Start,
		passes: c.passes + o.passes, glances: c.glances + o.glances, exchanges: c.exchanges + o.exchanges, failures: c.failures + o.failures,
	}
}

func (c costs) over(n int) costs {
	d := time.Duration(n)
	return costs{
		Decode: c.Decode / d, Verify: c.Verify / d, Observe: c.Observe / d, Decide: c.Decide / d, Plan: c.Plan / d,
		Exchange: c.Exchange / d, Start: c.Start / d,
		passes: c.passes / n, glances: c.glances / n, exchanges: c.exchanges / n, failures: c.failures / n,
	}
}

// head begins the table of scenarios, in Markdown.
func (b *bench) head(out io.Writer) {
	fmt.Fprintf(out, "%d nodes, of which %d are observed. NodeKey event %d bytes; exchange of a preshared key %s of CPU per end and %d bytes; a verifier holds %.1f MB.\n\n",
		len(b.authors), b.observed, len(b.authors[len(b.authors)-1].line), b.price.CPU.Round(10*time.Microsecond), b.price.Bytes, float64(b.memory)/1e6)
	fmt.Fprintln(out, "| scenario | simulated | times | CPU s per node | CPU s of all | exchanges per node (failed) | watch MB per node | watch GB of all | API writes | converged p50 / max | rotation p50 / max |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|---|")
}

// print adds a scenario.
func (b *bench) print(out io.Writer, r row) {
	n := float64(len(b.authors))
	each := r.factor * r.each.sum().Seconds()
	all, spent, exchanges := n*each, fmt.Sprintf("%.1f", each), fmt.Sprintf("%.0f (%d)", r.factor*float64(r.each.exchanges), r.each.failures)
	if r.firstOnly {
		spent = fmt.Sprintf("%.1f; %.1f the rotating", each, r.first.sum().Seconds())
		exchanges = fmt.Sprintf("%d; %d the rotating", r.each.exchanges, r.first.exchanges)
		all += r.first.sum().Seconds() - each
	}
	fmt.Fprintf(out, "| %s | %s | %.1f | %s | %.0f | %s | %.2f | %.2f | %.0f | %s | %s |\n", r.name, r.simulated.Round(time.Second), r.factor,
		spent, all, exchanges, r.factor*r.bytes/1e6, r.factor*n*r.bytes/1e9, r.factor*r.writes, spread(r.converge), spread(r.rotation))
}

// printAllCosts says what the CPU was spent on, in what was simulated.
func printAllCosts(out io.Writer, rows []row) {
	fmt.Fprintln(out, "\n| scenario, as simulated | passes | looks | decode s | verify s | kernel s | decide s | plan s | exchanges s | start s | a pass |")
	fmt.Fprintln(out, "|---|---|---|---|---|---|---|---|---|---|---|")
	for _, r := range rows {
		if r.firstOnly {
			printCosts(out, r.name+", the rotating", r.first)
		}
		printCosts(out, r.name, r.each)
	}
}

func printCosts(out io.Writer, name string, c costs) {
	pass := (c.Decode + c.Verify + c.Observe + c.Decide + c.Plan) / time.Duration(max(1, c.passes+c.glances))
	fmt.Fprintf(out, "| %s | %d | %d | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %.1f | %s |\n", name, c.passes, c.glances,
		c.Decode.Seconds(), c.Verify.Seconds(), c.Observe.Seconds(), c.Decide.Seconds(), c.Plan.Seconds(), c.Exchange.Seconds(), c.Start.Seconds(), pass.Round(time.Millisecond))
}

func spread(d []time.Duration) string {
	if len(d) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s / %s", d[len(d)/2].Round(100*time.Millisecond), d[len(d)-1].Round(100*time.Millisecond))
}
