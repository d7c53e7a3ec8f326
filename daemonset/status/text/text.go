// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package text

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/words"
)

// shownLines limits the list of problems: one dead node of a large cluster is a
// problem of every other node. The JSON form lists them all.
const shownLines = 20

// Renderer renders reports for people.
type Renderer struct {
	Color bool // red for plaintext and problems; for terminals only
}

// Cluster renders the verdict and tables over all nodes.
func (t Renderer) Cluster(r status.Report) string {
	return t.sections(t.verdict(r.Verdict),
		t.render(nodeTable(r.Cluster)), t.render(certificateTable(r.Nodes)), t.render(peerTable(r.Nodes)),
		t.render(refusalTable(r.Nodes)), t.render(dropTable(r.Nodes)), clearLine(r.Nodes))
}

// Node renders the verdict and all that is known of the node, or nodes, of r.
func (t Renderer) Node(r status.Report) string {
	parts := []string{t.verdict(r.Verdict)}
	for _, n := range r.Nodes {
		parts = append(parts, t.render(detailTable(n)))
	}
	parts = append(parts, t.render(peerTable(r.Nodes)), t.render(peerCertificateTable(r.Nodes)),
		t.render(refusalTable(r.Nodes)), t.render(dropTable(r.Nodes)))
	return t.sections(parts...)
}

// sections joins what is not empty by blank lines.
func (t Renderer) sections(parts ...string) string {
	var kept []string
	for _, p := range parts {
		if p != "" {
			kept = append(kept, p)
		}
	}
	return strings.Join(kept, "\n")
}

func (t Renderer) verdict(v status.Verdict) string {
	how := map[status.State]tone{status.Encrypted: good, status.Degraded: bad, status.NotEncrypted: bad, status.Unknown: bad}[v.State]
	var b strings.Builder
	b.WriteString(t.paint(words.Printable(v.Summary), how) + "\n")
	t.list(&b, v.Problems, bad)
	t.list(&b, v.Warnings, dubious)
	return b.String()
}

func (t Renderer) list(b *strings.Builder, lines []string, how tone) {
	for i, line := range lines {
		if i == shownLines {
			fmt.Fprintf(b, "  … and %d more (use -o json to see all)\n", len(lines)-i)
			return
		}
		b.WriteString("  " + t.paint(map[tone]string{bad: "✗", dubious: "!"}[how], how) + " " + words.Printable(line) + "\n")
	}
}

func nodeTable(c status.Cluster) table {
	tb := table{head: []string{"NODE", "READY", "LANES", "ENCAPSULATION", "KEY", "SINCE", "PODS", "ADDRESSES", "VERSION"}}
	for _, n := range c.Nodes {
		ready, lanes, kind := cell{"yes", plain}, cell{connected(n), plain}, cell{n.Encapsulation.String(), plain}
		if !n.Ready {
			ready = cell{"NO", bad}
		}
		if up, all := count(n.Peers); up < all {
			lanes.tone = bad
		}
		if n.Encapsulation.Plaintext {
			kind = cell{n.Encapsulation.Kind + " PLAINTEXT", bad}
		}
		tb.rows = append(tb.rows, append([]cell{{n.Name, plain}, ready, lanes, kind}, cells(
			key(n.Key.Generation, n.Key.PublicKey), since(n), strconv.Itoa(n.Pods), addresses(n), n.Version,
		)...))
	}
	for _, s := range c.Silent {
		tb.rows = append(tb.rows, []cell{{s.Name, plain}, {"NO REPORT", bad}})
	}
	return tb
}

func connected(n status.Node) string {
	up, all := count(n.Peers)
	return fmt.Sprintf("%d/%d", up, all)
}

func count(peers []status.Peer) (up, all int) {
	for _, p := range peers {
		if p.State == status.Connected {
			up++
		}
	}
	return up, len(peers)
}

// key returns generation and the whole public key: half a key vouches for nothing.
func key(generation uint64, public string) string {
	if public == "" {
		return "-"
	}
	return fmt.Sprintf("%d %s", generation, public)
}

func since(n status.Node) string {
	if n.Key.Since.IsZero() {
		return "-"
	}
	return words.Ago(n.Time, n.Key.Since)
}

func addresses(n status.Node) string {
	parts := make([]string, 0, len(n.Addresses))
	for _, a := range n.Addresses {
		size := "many"
		if a.Size < 1<<32 {
			size = strconv.FormatUint(a.Size, 10)
		}
		parts = append(parts, fmt.Sprintf("%s %d/%s", a.Family, a.Used, size))
	}
	return orDash(strings.Join(parts, ", "))
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

func certificateTable(nodes []status.Node) table {
	tb := table{head: []string{"NODE", "CERTIFICATE", "ISSUER", "ISSUED", "EXPIRES", "RENEWAL", "STATEMENT", "EXPIRES"}}
	for _, n := range nodes {
		if n.Certificate.Serial == "" {
			continue
		}
		c, s := n.Certificate, n.Statement
		ends, statementEnds := cell{words.Ago(n.Time, c.NotAfter), plain}, cell{words.Ago(n.Time, s.NotAfter), plain}
		if words.Past(n.Time, c.NotAfter) {
			ends.tone = bad
		}
		if words.Past(n.Time, s.NotAfter) {
			statementEnds.tone = bad
		}
		row := append(cells(n.Name, c.Serial, c.Issuer, words.Ago(n.Time, c.NotBefore)), ends, cell{words.Ago(n.Time, c.RenewAt), plain})
		if s.Sequence != 0 {
			row = append(row, cell{strconv.FormatUint(s.Sequence, 10), plain}, statementEnds)
		}
		tb.rows = append(tb.rows, row)
	}
	return tb
}

func peerTable(nodes []status.Node) table {
	tb := table{head: []string{"NODE", "PEER", "STATE", "HANDSHAKE", "RECEIVED", "SENT", "ENDPOINT", "KEY"}}
	for _, n := range nodes {
		for _, p := range n.Peers {
			state := cell{p.State.Words(), plain}
			switch {
			case p.State != status.Connected:
				state.tone = bad
			case n.Encapsulation.Plaintext:
				state = cell{"in clear", bad}
			case p.Grace:
				state = cell{"in grace", bad}
			}
			tb.rows = append(tb.rows, append([]cell{{n.Name, plain}, {p.Name, plain}, state}, cells(
				handshake(n, p), words.Bytes(p.RxBytes), words.Bytes(p.TxBytes), orDash(p.Endpoint), key(p.Generation, p.PublicKey),
			)...))
		}
	}
	return tb
}

func handshake(n status.Node, p status.Peer) string {
	if p.LastHandshake.IsZero() && n.Encapsulation.Plaintext {
		return "-"
	}
	return words.Ago(n.Time, p.LastHandshake)
}

func refusalTable(nodes []status.Node) table {
	tb := table{head: []string{"NODE", "REFUSED", "REASON", "TIMES", "LAST", "MESSAGE"}}
	for _, n := range nodes {
		for _, r := range slices.Concat(n.Refused, n.RefusedAddresses) {
			row := cells(n.Name, r.Node, r.Reason, strconv.FormatUint(r.Count, 10), words.Ago(n.Time, r.Last), r.Message)
			row[2].tone = dubious
			tb.rows = append(tb.rows, row)
		}
	}
	return tb
}

func dropTable(nodes []status.Node) table {
	tb := table{head: []string{"NODE", "DROPPED", "PACKETS", "BYTES"}}
	for _, n := range nodes {
		for _, d := range n.Drops {
			if d.Packets > 0 {
				tb.rows = append(tb.rows, cells(n.Name, d.Reason, strconv.FormatUint(d.Packets, 10), words.Bytes(d.Bytes)))
			}
		}
	}
	return tb
}

// clearLine lists once what no node encrypts, by design.
func clearLine(nodes []status.Node) string {
	var all []string
	seen := map[string]bool{}
	for _, n := range nodes {
		for _, c := range n.Clear {
			if !seen[c] {
				all = append(all, words.Printable(c))
			}
			seen[c] = true
		}
	}
	if len(all) == 0 {
		return ""
	}
	return "in clear by design: " + strings.Join(all, ", ") + "\n"
}
