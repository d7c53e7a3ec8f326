// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package text

import (
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/daemonset/status/words"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/keytest"
)

func evidence(c *keytest.Cluster, n *keytest.Node) status.Evidence {
	return status.Evidence{
		TrustDomain: keytest.TrustDomain, Bundle: c.Authority.Bundle(), Live: n.Live, Signed: n.Sign(), Now: c.Clock.Now(),
	}
}

func TestVouchForAGoodKey(t *testing.T) {
	c := keytest.NewCluster(t)
	n := c.Node("n1", "10.244.1.0/24", "fd44:0:0:1::/64")
	e := evidence(c, n)
	e.Now = e.Now.Add(2 * time.Hour)
	v := status.Vouch(e)
	if v.Err != nil {
		t.Fatal(v.Err)
	}
	info, err := keymgr.ParseCertificateInfo(e.Signed.Chain[0])
	if err != nil {
		t.Fatal(err)
	}
	key := v.Statement.Keys[0].Key.String()
	text := Renderer{}.Voucher(v)
	for _, want := range []string{
		"verified: key " + key + " of node n1, generation 1, is vouched for by certificate " + info.Serial + "\n",
		"generation 1, " + key + ", UDP ports 51873 and 51874",
		"signed with the key of  spiffe://" + keytest.TrustDomain + "/node/n1/" + n.Live.ID.UID,
		info.Issuer, "10.244.1.0/24, fd44:0:0:1::/64", n.Live.Addresses[0].String(), "(2h ago)", "trusted root",
	} {
		if !strings.Contains(text, want) {
			t.Errorf("the text lacks %q:\n%s", want, text)
		}
	}
	if strings.Count(text, "10.244.1.0/24, fd44:0:0:1::/64") != 2 {
		t.Errorf("the pod ranges stand not once each in statement and certificate:\n%s", text)
	}
}

func TestVouchForNothing(t *testing.T) {
	c, foreign := keytest.NewCluster(t), keytest.NewCluster(t)
	n := c.Node("n1", "10.244.1.0/24")
	for _, tc := range []struct {
		name   string
		change func(*status.Evidence)
		want   error
	}{
		{"foreign bundle", func(e *status.Evidence) { e.Bundle = foreign.Authority.Bundle() }, keymgr.ErrChain},
		{"no bundle", func(e *status.Evidence) { e.Bundle = nil }, keymgr.ErrBundle},
		{"other node", func(e *status.Evidence) { e.Live.ID = keytest.ID("n2") }, keymgr.ErrIdentity},
		{"other cluster", func(e *status.Evidence) { e.TrustDomain = "other" }, keymgr.ErrTrustDomain},
		{"ended", func(e *status.Evidence) { e.Now = e.Now.Add(30 * words.Day) }, keymgr.ErrExpired},
		{"payload changed", func(e *status.Evidence) {
			e.Signed.Payload = []byte(strings.Replace(string(e.Signed.Payload), "51874", "51875", 1))
		}, keymgr.ErrSignature},
		{"payload of no form", func(e *status.Evidence) { e.Signed.Payload = []byte("\x1b[2J") }, keymgr.ErrFormat},
		{"chain of no form", func(e *status.Evidence) { e.Signed.Chain = [][]byte{[]byte("\x1b[2J")} }, keymgr.ErrChain},
		{"no chain", func(e *status.Evidence) { e.Signed.Chain = nil }, keymgr.ErrTooLarge},
		{"nothing published", func(e *status.Evidence) { e.Signed = keymgr.Signed{} }, keymgr.ErrFormat},
	} {
		t.Run(tc.name, func(t *testing.T) {
			e := evidence(c, n)
			e.Signed.Chain = slices.Clone(e.Signed.Chain)
			tc.change(&e)
			v := status.Vouch(e)
			if !errors.Is(v.Err, tc.want) {
				t.Errorf("error %v, want %v", v.Err, tc.want)
			}
			text := Renderer{}.Voucher(v)
			if !strings.HasPrefix(text, "NOT VERIFIED ("+keymgr.RejectReason(tc.want)+"): ") || strings.Contains(text, "\x1b") {
				t.Errorf("text %q", text)
			}
		})
	}
}
