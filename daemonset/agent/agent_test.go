// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
)

// TestForwardKindsAgree: plan and data path write the same numbers.
func TestForwardKindsAgree(t *testing.T) {
	for o, b := range map[overlay.ForwardKind]bpf.ForwardKind{
		overlay.PodRemote: bpf.PodRemote, overlay.NodeRemote: bpf.NodeRemote, overlay.NodeLocal: bpf.NodeLocal,
		overlay.PodLocal: bpf.PodLocal, overlay.Cluster: bpf.Cluster,
	} {
		if uint8(o) != uint8(b) {
			t.Errorf("%v is %d in the plan and %d in the data path", o, o, b)
		}
	}
}

func TestFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // in the error; empty: none
	}{
		"least":              {[]string{"--node-name=a"}, ""},
		"all":                {[]string{"--node-name=a", "--lane=vxlan", "--insecure-plaintext", "--mtu=1400", "--cluster-pod-cidrs=10.0.0.0/8, fd00::/48", "--uplinks=eth0,eth1", "--log-level=debug"}, ""},
		"no node":            {nil, "--node-name"},
		"plaintext unasked":  {[]string{"--node-name=a", "--lane=vxlan"}, "--insecure-plaintext"},
		"unknown lane":       {[]string{"--node-name=a", "--lane=ipip"}, "--lane=ipip"},
		"port without room":  {[]string{"--node-name=a", "--lane-port=65533"}, "--lane-port=65533"},
		"no port":            {[]string{"--node-name=a", "--lane-port=x"}, `"x" is no port`},
		"range":              {[]string{"--node-name=a", "--cluster-pod-cidrs=10.0.0.0"}, `"10.0.0.0" is no address range`},
		"small mtu":          {[]string{"--node-name=a", "--mtu=900"}, "--mtu=900"},
		"short period":       {[]string{"--node-name=a", "--rotation-period=10s"}, "--rotation-period=10s"},
		"no rotation":        {[]string{"--node-name=a", "--rotation-period=0"}, ""},
		"unknown mode":       {[]string{"--node-name=a", "--post-quantum=maybe"}, "--post-quantum=maybe"},
		"short certificates": {[]string{"--node-name=a", "--certificate-lifetime=1m"}, "--certificate-lifetime"},
		"negative grace":     {[]string{"--node-name=a", "--expired-grace=-1h"}, "--expired-grace=-1h"},
		"strict":             {[]string{"--node-name=a", "--expired-grace=0", "--strict-continuity"}, ""},
		"relative path":      {[]string{"--node-name=a", "--state-dir=x"}, "--state-dir=x"},
	} {
		t.Run(name, func(t *testing.T) {
			var c Config
			fs := flag.NewFlagSet("test", flag.ContinueOnError)
			fs.SetOutput(io.Discard)
			c.Register(fs)
			err := fs.Parse(tc.args)
			if err == nil {
				err = c.Validate()
			}
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}

func TestStateBecomesReadyOnceAndStaysSo(t *testing.T) {
	s := newState(partNode, partNetwork)
	if _, err := s.podMTU(); !errors.Is(err, cni.ErrNotReady) || !strings.Contains(err.Error(), "starting") {
		t.Errorf("before: %v", err)
	}
	s.setMTU(1420)
	s.report(partNode, nil)
	s.report(partNetwork, errors.New("no lane"))
	if _, err := s.podMTU(); !errors.Is(err, cni.ErrNotReady) || !strings.Contains(err.Error(), "network: no lane") {
		t.Errorf("half: %v", err)
	}
	s.report(partNetwork, nil)
	select {
	case <-s.ready:
	default:
		t.Error("ready is not announced")
	}
	s.report(partNode, errors.New("API server away"))
	if mtu, err := s.podMTU(); err != nil || mtu != 1420 {
		t.Errorf("after a later fault: %d, %v; pods must still be connected", mtu, err)
	}
	if diff := cmp.Diff([]string{"node: API server away"}, s.reasons()); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

// fakeVerifier accepts statements whose payload is "good".
type fakeVerifier struct{ forgotten []string }

func (f *fakeVerifier) Revoked(keymgr.NodeID, keymgr.CertificateInfo) (keymgr.RevocationReason, bool) {
	return "", false
}

func (f *fakeVerifier) Verify(s keymgr.Signed, live keymgr.LiveNode) (keymgr.Peer, error) {
	if string(s.Payload) != "good" {
		return keymgr.Peer{}, keymgr.ErrSignature
	}
	return keymgr.Peer{ID: live.ID, PodCIDRs: live.PodCIDRs, Until: time.Now().Add(time.Hour), Seq: 1}, nil
}

func (f *fakeVerifier) Remembered() []keymgr.Record { return nil }

func (f *fakeVerifier) Forget(id keymgr.NodeID) error {
	f.forgotten = append(f.forgotten, id.Name)
	return nil
}

// events keeps what would have been told to the operator.
type events []kube.EventSpec

func (e *events) Event(_ context.Context, s kube.EventSpec) { *e = append(*e, s) }

func TestJudgeKeepsWhatWasAccepted(t *testing.T) {
	v, told := &fakeVerifier{}, &events{}
	j := newJudge(v, told, slog.New(slog.DiscardHandler), nil)
	snap := kube.Snapshot{
		Nodes:    []kube.Node{{Name: "a", UID: "1"}, {Name: "b", UID: "2"}},
		NodeKeys: map[string]keymgr.Signed{"b": {Payload: []byte("good")}},
	}
	pass := func() judged {
		t.Helper()
		all := j.pass(t.Context(), snap, "a")
		if len(all) != 1 || all[0].node.Name != "b" {
			t.Fatalf("judged %+v, want node b alone", all)
		}
		return all[0]
	}
	if got := pass(); got.err != nil || got.peer.Seq != 1 {
		t.Fatalf("good statement: %+v", got)
	}
	snap.NodeKeys["b"] = keymgr.Signed{Payload: []byte("forged")}
	for range 3 {
		if got := pass(); !errors.Is(got.err, keymgr.ErrSignature) || got.peer.Seq != 1 {
			t.Errorf("forged statement: %+v; want it refused, and the old one in force", got)
		}
	}
	if r := j.refusedSoFar(); len(r) != 1 || r[0].Count != 1 || r[0].Reason != "signature" || len(*told) != 1 {
		t.Errorf("one forgery seen three times: refusals %+v, events %+v; want one of each", r, *told)
	}
	delete(snap.NodeKeys, "b")
	if got := pass(); got.peer.Seq != 1 {
		t.Errorf("NodeKey deleted: %+v; want the old one in force", got)
	}
	snap.Nodes = snap.Nodes[:1]
	if all := j.pass(t.Context(), snap, "a"); len(all) != 0 || len(v.forgotten) != 1 {
		t.Errorf("node gone: judged %+v, forgotten %v", all, v.forgotten)
	}
	snap.Nodes = append(snap.Nodes, kube.Node{Name: "b", UID: "3"})
	if got := j.pass(t.Context(), snap, "a")[0]; got.peer.Seq != 0 {
		t.Errorf("a new node of the same name has the old one's statement: %+v", got)
	}
}

func TestSameFamily(t *testing.T) {
	addrs := func(s ...string) (all []netip.Addr) {
		for _, a := range s {
			all = append(all, netip.MustParseAddr(a))
		}
		return all
	}
	for name, tc := range map[string]struct {
		from, own []netip.Addr
		want      string
	}{
		"both":      {addrs("fd00::2", "192.0.2.2"), addrs("192.0.2.1", "fd00::1"), "192.0.2.2"},
		"only IPv6": {addrs("fd00::2"), addrs("192.0.2.1", "fd00::1"), "fd00::2"},
		"none":      {addrs("fd00::2"), addrs("192.0.2.1"), "invalid IP"},
	} {
		if got := sameFamily(tc.from, tc.own).String(); got != tc.want {
			t.Errorf("%s: %s, want %s", name, got, tc.want)
		}
	}
}

func TestFindSelf(t *testing.T) {
	cidr, addr := netip.MustParsePrefix("10.0.0.0/24"), netip.MustParseAddr("192.0.2.1")
	for name, tc := range map[string]struct {
		node kube.Node
		want string
	}{
		"good":       {kube.Node{Name: "a", PodCIDRs: []netip.Prefix{cidr}, Addresses: []netip.Addr{addr}}, ""},
		"other name": {kube.Node{Name: "b"}, "--node-name"},
		"no range":   {kube.Node{Name: "a", Addresses: []netip.Addr{addr}}, "--allocate-node-cidrs"},
		"no address": {kube.Node{Name: "a", PodCIDRs: []netip.Prefix{cidr}}, "InternalIP"},
	} {
		_, err := findSelf(kube.Snapshot{Nodes: []kube.Node{tc.node}}, "a")
		if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: %v, want %q", name, err, tc.want)
		}
	}
}
