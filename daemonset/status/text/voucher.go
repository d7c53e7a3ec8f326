// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package text

import (
	"crypto/sha256"
	"crypto/x509"
	"encoding/asn1"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/words"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/extension"
)

// Voucher renders what vouches for a node's key, from the key upwards.
func (t Renderer) Voucher(v status.Voucher) string {
	parts := []string{t.judgement(v), t.render(statementTable(v))}
	for i, c := range v.Chain {
		title := "issued by"
		if i == 0 {
			title = "signed with the key of"
		}
		parts = append(parts, t.render(certificateLines(title, c, v.Now)))
	}
	if v.Root != nil && !v.Root.Equal(v.Chain[len(v.Chain)-1]) {
		parts = append(parts, t.render(certificateLines("trusted root", v.Root, v.Now)))
	}
	return t.sections(parts...)
}

func (t Renderer) judgement(v status.Voucher) string {
	if v.Err != nil {
		reason := keymgr.RejectReason(v.Err)
		return t.paint(words.Printable("NOT VERIFIED ("+reason+"): "+v.Err.Error()), bad) + "\n"
	}
	newest := v.Statement.Keys[len(v.Statement.Keys)-1]
	return t.paint(words.Printable(fmt.Sprintf("verified: key %s of node %s, generation %d, is vouched for by certificate %s",
		newest.Key, v.Live.ID.Name, newest.Generation, v.Chain[0].SerialNumber.Text(16))), good) + "\n"
}

// lines are a table of names and values under a title.
type lines struct{ table }

func (l *lines) add(name, value string) {
	if value != "" {
		l.rows = append(l.rows, []cell{{"  " + name, plain}, {value, plain}})
	}
}

func titled(title, value string) *lines {
	return &lines{table{rows: [][]cell{{{title, heading}, {value, heading}}}}}
}

func statementTable(v status.Voucher) table {
	s := v.Statement
	if s.Type == "" {
		return table{}
	}
	l := titled("statement", fmt.Sprintf("%s, sequence %d", s.Type, s.Seq))
	for _, k := range s.Keys {
		l.add("key", fmt.Sprintf("generation %d, %s, UDP ports %d and %d", k.Generation, k.Key, k.Ports[0], k.Ports[1]))
	}
	if len(s.RevokedGens) > 0 {
		l.add("revoked", fmt.Sprint("generations ", s.RevokedGens))
	}
	l.add("node", s.NodeName+" "+s.NodeUID)
	l.add("trust domain", s.TrustDomain)
	l.add("pods", prefixes(s.PodCIDRs))
	l.add("endpoints", addressList(s.Endpoints))
	l.add("issued", moment(v.Now, s.IssuedAt))
	l.add("expires", moment(v.Now, s.NotAfter))
	return l.table
}

func certificateLines(title string, c *x509.Certificate, now time.Time) table {
	name := c.Subject.String()
	if len(c.URIs) > 0 && name == "" {
		name = c.URIs[0].String()
	}
	l := titled(title, name)
	l.add("serial", c.SerialNumber.Text(16))
	l.add("issuer", c.Issuer.String())
	l.add("key", fmt.Sprintf("%s, SHA-256 %x", c.PublicKeyAlgorithm, sha256.Sum256(c.RawSubjectPublicKeyInfo)))
	l.add("pods", certified(c, extension.PodCIDRsID(), extension.ParsePodCIDRs, prefixes))
	l.add("addresses", certified(c, extension.AddressesID(), extension.ParseAddresses, addressList))
	l.add("valid from", moment(now, c.NotBefore))
	l.add("expires", moment(now, c.NotAfter))
	return l.table
}

// certified shows what an extension of a certificate names; "" without the extension.
func certified[T any](c *x509.Certificate, id asn1.ObjectIdentifier, parse func([]byte) ([]T, error), show func([]T) string) string {
	for _, e := range c.Extensions {
		if !e.Id.Equal(id) {
			continue
		}
		all, err := parse(e.Value)
		if err != nil {
			return err.Error()
		}
		return show(all)
	}
	return ""
}

func moment(now, t time.Time) string {
	return t.UTC().Format(time.RFC3339) + " (" + words.Ago(now, t) + ")"
}

func addressList(all []netip.Addr) string {
	parts := make([]string, len(all))
	for i, a := range all {
		parts[i] = a.String()
	}
	return strings.Join(parts, ", ")
}
