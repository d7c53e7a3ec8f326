// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package text

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/words"
)

// detailTable holds a line for each thing known of one node, except peers and drops.
func detailTable(n status.Node) table {
	var tb table
	add := func(name, value string, how tone) {
		if value != "" {
			tb.rows = append(tb.rows, []cell{{name, heading}, {value, how}})
		}
	}
	add("node", n.Name+" "+n.UID, plain)
	add("daemon", n.Version, plain)
	if n.Ready {
		add("ready", "yes", plain)
	} else {
		add("ready", "NO: "+n.WhyNotReady(), bad)
	}
	if n.Encapsulation.Plaintext {
		add("encapsulation", encapsulation(n.Encapsulation), bad)
	} else {
		add("encapsulation", encapsulation(n.Encapsulation), plain)
	}
	add("certificate", certificate(n), plain)
	add("trust bundle", n.BundleHash, plain)
	add("REFUSED", n.BundleRefused, bad)
	add("key", ownKey(n), plain)
	add("rotation", rotation(n), plain)
	add("post-quantum", postQuantum(n), plain)
	add("statement", statement(n), plain)
	if n.Revocations.Revoked != "" {
		add("REVOKED", n.Revocations.Revoked, bad)
	}
	add("revocations", revocations(n), plain)
	add("cluster pods", prefixes(n.ClusterPodCIDRs), plain)
	add("node's pods", prefixes(n.PodCIDRs), plain)
	add("pods", fmt.Sprintf("%d, addresses %s", n.Pods, addresses(n)), plain)
	add("traffic", traffic(n.Paths), plain)
	add("leak guard", "on "+orDash(strings.Join(n.Uplinks, ", ")), plain)
	if n.LastLeak != nil {
		add("last leak", n.LastLeak.String()+" ("+n.LastLeak.Reason+")", dubious)
	}
	add("in clear", strings.Join(n.Clear, ", "), plain)
	return tb
}

func encapsulation(e status.Encapsulation) string {
	s := e.String()
	if e.Plaintext {
		s += ", PLAINTEXT"
	}
	s += ", pods' MTU " + strconv.Itoa(e.MTU)
	for _, d := range e.Devices {
		s += fmt.Sprintf(", %s (UDP %d)", d.Name, d.Port)
	}
	return s
}

func certificate(n status.Node) string {
	c := n.Certificate
	if c.Serial == "" {
		return ""
	}
	return fmt.Sprintf("serial %s, issuer %s, issued %s, expires %s, renewal %s",
		c.Serial, c.Issuer, words.Ago(n.Time, c.NotBefore), words.Ago(n.Time, c.NotAfter), words.Ago(n.Time, c.RenewAt))
}

func ownKey(n status.Node) string {
	if n.Key.PublicKey == "" {
		return ""
	}
	return fmt.Sprintf("generation %d, %s, made %s", n.Key.Generation, n.Key.PublicKey, words.Ago(n.Time, n.Key.Since))
}

func rotation(n status.Node) string {
	r := n.Rotation
	if r.State == "" {
		return ""
	}
	s := fmt.Sprintf("%s since %s", r.State, words.Ago(n.Time, r.Since))
	if r.Reason != "" {
		s += ", newest key: " + strings.ReplaceAll(r.Reason, "_", " ")
	}
	if len(r.Waiting) > 0 {
		s += ", waiting for " + strings.Join(r.Waiting, ", ")
	}
	return s
}

func postQuantum(n status.Node) string {
	if n.PostQuantum == "" {
		return ""
	}
	preshared := 0
	for _, p := range n.Peers {
		if p.Preshared {
			preshared++
		}
	}
	return fmt.Sprintf("%s, %d of %d lanes with a preshared key", n.PostQuantum, preshared, len(n.Peers))
}

func statement(n status.Node) string {
	s := n.Statement
	if s.Sequence == 0 {
		return ""
	}
	return fmt.Sprintf("sequence %d, issued %s, expires %s", s.Sequence, words.Ago(n.Time, s.IssuedAt), words.Ago(n.Time, s.NotAfter))
}

func revocations(n status.Node) string {
	r := n.Revocations
	if r.Number == 0 {
		return ""
	}
	return fmt.Sprintf("list %d, newest issued %s", r.Number, words.Ago(n.Time, r.IssuedAt))
}

func prefixes(all []netip.Prefix) string {
	parts := make([]string, len(all))
	for i, p := range all {
		parts[i] = p.String()
	}
	return strings.Join(parts, ", ")
}

func traffic(paths []status.Traffic) string {
	parts := make([]string, len(paths))
	for i, p := range paths {
		parts[i] = fmt.Sprintf("%s %s (%s)", strings.ReplaceAll(p.Path, "_", " "), words.Plural(p.Packets, "packet"), words.Bytes(p.Bytes))
	}
	return strings.Join(parts, ", ")
}

// peerCertificateTable shows what vouches for each peer's key.
func peerCertificateTable(nodes []status.Node) table {
	tb := table{head: []string{"NODE", "PEER", "VOUCHED BY CERTIFICATE", "ISSUER", "EXPIRES", "STATEMENT EXPIRES"}}
	for _, n := range nodes {
		for _, p := range n.Peers {
			if p.Certificate.Serial == "" {
				continue
			}
			tb.rows = append(tb.rows, cells(n.Name, p.Name, p.Certificate.Serial, p.Certificate.Issuer,
				words.Ago(n.Time, p.Certificate.NotAfter), words.Ago(n.Time, p.StatementNotAfter)))
		}
	}
	return tb
}
