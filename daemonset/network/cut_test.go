// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package network

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/overlaytest"
)

// judged is the security of a cluster whose peers are verified already.
type judged struct {
	*recorder
	verified []trust.Result
	list     uint64 // number of the revocation list
	pairs    map[string][]rotation.WantedPair
}

func (j *judged) verify(_ context.Context, _ cluster.Snapshot, v *View, _ bool) error {
	v.Peers, v.Revocations = j.verified, j.list
	return j.look("trust bundle")
}

func (j *judged) step(_ context.Context, _ scene, v *View) (step, error) {
	d := rotation.Decision{Peers: map[string]rotation.PeerDecision{}}
	for uid, pairs := range j.pairs {
		d.Peers[uid] = rotation.PeerDecision{Install: pairs, Active: pairs[0].Pair}
	}
	s := step{peers: overlayPeers(v.Peers, v.Self, d), generations: []uint64{1}, commit: func() bool { return false }}
	if j.fail == "plan" {
		s.generations = nil
	}
	return s, j.look("rotation")
}

func (*judged) poll(context.Context) (bool, time.Duration)                { return true, 0 }
func (*judged) renew(context.Context, overlay.Plan) (bool, time.Duration) { return true, 0 }

// trial is a node with lanes to good, which has two keys, one of them not in the plan, and
// to gone, for which nothing vouches any more.
type trial struct {
	*recorder
	*judged
	loop             *Loop
	good, next, gone keymgr.PublicKey
	snap             cluster.Snapshot
}

func newTrial(t *testing.T) *trial {
	t.Helper()
	r, l := newRecorder()
	x := &trial{recorder: r, loop: l, gone: overlaytest.PublicKey(t, "gone")}
	id := keymgr.NodeID{Name: "good", UID: "u-good"}
	both := overlaytest.NewAuthority(t).Verify(t,
		overlaytest.Key{ID: id, Generation: 1, Public: overlaytest.PublicKey(t, "good"), BasePort: 1000},
		overlaytest.Key{ID: id, Generation: 2, Public: overlaytest.PublicKey(t, "next"), BasePort: 1000})
	x.good, x.next = both[0].Key(), both[1].Key()
	self := kube.Node{
		Name: "self", UID: "u-self", Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.1")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.1.0/24")},
	}
	node := kube.Node{
		Name: id.Name, UID: id.UID, Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2")}, PodCIDRs: []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24")},
	}
	x.snap.Nodes = []kube.Node{node, self}
	x.judged = &judged{
		recorder: r, list: 7, pairs: map[string][]rotation.WantedPair{id.UID: {{Pair: rotation.Pair{Own: 1, Peer: 1}}}},
		verified: []trust.Result{{Node: node, Peer: keymgr.Peer{ID: id, Keys: both, Endpoints: node.Addresses, PodCIDRs: node.PodCIDRs}}},
	}
	l.security, l.Plan.Encapsulation = x.judged, overlay.WireGuard
	for _, k := range []keymgr.PublicKey{x.good, x.gone, x.next} {
		r.peers = append(r.peers, overlay.PeerState{Key: k})
	}
	return x
}

func (x *trial) pass(t *testing.T) error {
	t.Helper()
	_, err := x.loop.pass(t.Context(), x.snap, false)
	return err
}

// has checks which peers the tunnels have.
func (x *trial) has(t *testing.T, what string, want ...keymgr.PublicKey) {
	t.Helper()
	var got []keymgr.PublicKey
	for _, p := range x.peers {
		got = append(got, p.Key)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: peers of the tunnel (-want +got):\n%s", what, diff)
	}
}

// TestRevokedPeerIsGoneWhateverFails: in the same pass, and the others stay, with all
// their keys.
func TestRevokedPeerIsGoneWhateverFails(t *testing.T) {
	first := newTrial(t)
	if err := first.pass(t); err != nil {
		t.Fatal(err)
	}
	first.has(t, "nothing fails", first.good, first.next)
	if first.did[0] != "1 peers gone" {
		t.Errorf("first act: %s", first.did[0])
	}
	before := []string{
		"read lanes", "trust bundle", "pod ranges", "list devices", "list addresses", "list routes", "no address", "rotation", "plan",
		"this node is missing",
	}
	for _, step := range slices.Concat(before, first.did[1:]) {
		x := newTrial(t)
		x.fail = step
		if step == "this node is missing" {
			x.snap.Nodes = x.snap.Nodes[:1]
		}
		if err := x.pass(t); err == nil {
			t.Errorf("%s fails: no error", step)
		}
		x.has(t, step+" fails", x.good, x.next)
	}
}

// TestRevocationIsFollowedWhateverFails: who waits for a revocation hears of it although
// the rest of the pass fails. A peer that could not be removed is no such case.
func TestRevocationIsFollowedWhateverFails(t *testing.T) {
	for fail, want := range map[string]uint64{"": 8, "plan": 8, "routes": 8, "1 peers gone": 7, "read lanes": 7} {
		x := newTrial(t)
		if err := x.pass(t); err != nil {
			t.Fatal(err)
		}
		x.peers = append(x.peers, overlay.PeerState{Key: x.gone})
		x.list, x.fail = 8, fail
		if err := x.pass(t); (err == nil) != (fail == "") {
			t.Errorf("%s fails: error %v", fail, err)
		}
		if got := x.loop.View().Revocations; got != want {
			t.Errorf("%s fails: list %d is followed, want %d", fail, got, want)
		}
	}
}

// TestPeerWithoutLaneIsGoneFirst: a peer that is verified and contradicts another one
// has no lane, and is gone although the plan cannot be applied.
func TestPeerWithoutLaneIsGoneFirst(t *testing.T) {
	x := newTrial(t)
	x.fail = "leak guard on eth0"
	x.verified[0].Peer.PodCIDRs = x.snap.Nodes[1].PodCIDRs // those of this node
	if err := x.pass(t); !errors.Is(err, errInjected) {
		t.Errorf("error %v", err)
	}
	x.has(t, "its ranges are this node's")
}

// TestPeersOfALightPass: what a light pass has to cut, it cuts first too.
func TestPeersOfALightPass(t *testing.T) {
	x := newTrial(t)
	if err := x.pass(t); err != nil {
		t.Fatal(err)
	}
	x.peers = append(x.peers, overlay.PeerState{Key: x.gone})
	x.did = nil
	if _, err := x.loop.pass(t.Context(), x.snap, true); err != nil {
		t.Fatal(err)
	}
	x.has(t, "light", x.good, x.next)
	if diff := cmp.Diff([]string{"1 peers gone", "lanes with 1 peers"}, x.did); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestRoutesDoNotWaitForAProgramThatHangs: the next revocation would wait as well.
func TestRoutesDoNotWaitForAProgramThatHangs(t *testing.T) {
	x := newTrial(t)
	x.loop.hostTime, x.hang = time.Millisecond, "routes"
	if err := x.pass(t); !errors.Is(err, context.DeadlineExceeded) || !strings.Contains(err.Error(), "apply routes") {
		t.Errorf("error %v", err)
	}
}
