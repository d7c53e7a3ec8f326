// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/informer"
	"github.com/sealane/sealane/keymgr"
)

var comparePlain = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

// await reads snapshots until one is complete and pleases ok.
func await(ctx context.Context, t *testing.T, w *Watcher, ok func(Snapshot) bool) Snapshot {
	t.Helper()
	for {
		if s, complete := w.Snapshot(); complete && ok(s) {
			return s
		}
		select {
		case <-w.Changed():
		case <-ctx.Done():
			s, complete := w.Snapshot()
			t.Fatalf("snapshot never came right; complete %t, last: %+v", complete, s)
		}
	}
}

func watching(t *testing.T, api *fakeAPI, cfg WatchConfig) (context.Context, *Watcher) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	w, err := api.Watch(ctx, cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); w.Wait() })
	informers := 4
	if cfg.Node != "" {
		informers++
	}
	if cfg.Revocations {
		informers++
	}
	api.awaitWatches(ctx, t, informers)
	return ctx, w
}

func TestSnapshotIsComplete(t *testing.T) {
	n2 := makeNode("n2", "u2", "10.244.2.0/24", "fd00:2::/64")
	n2.Labels = map[string]string{"node-role.kubernetes.io/control-plane": ""}
	n2.Status = corev1.NodeStatus{
		Addresses: []corev1.NodeAddress{
			{Type: corev1.NodeHostName, Address: "n2"},
			{Type: corev1.NodeInternalIP, Address: "192.0.2.2"},
			{Type: corev1.NodeInternalIP, Address: "2001:db8::2"},
			{Type: corev1.NodeExternalIP, Address: "198.51.100.2"},
		},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "p", UID: "pu", OwnerReferences: []metav1.OwnerReference{
			{Kind: "ReplicaSet", UID: "not-in-control"}, {Kind: "DaemonSet", UID: "du", Controller: new(true)},
		}},
		Spec: corev1.PodSpec{NodeName: "n2", ServiceAccountName: "sa"},
		Status: corev1.PodStatus{
			Phase: corev1.PodSucceeded, PodIPs: []corev1.PodIP{{IP: "10.244.2.9"}, {IP: "fd00:2::9"}},
		},
	}
	trust := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: kube.DefaultNamespace, Name: TrustConfigMap},
		Data:       map[string]string{TrustBundleKey: "PEM\n"},
	}
	api := newFake(t, n2, makeNode("n1", "u1"), pod, trust)
	if err := api.PublishNodeKey(t.Context(), keymgr.NodeID{Name: "n1", UID: "u1"}, statement(3, "")); err != nil {
		t.Fatal(err)
	}
	ctx, w := watching(t, api, WatchConfig{Node: "n2"})
	got := await(ctx, t, w, func(Snapshot) bool { return true })
	want := Snapshot{
		Nodes: []kube.Node{{Name: "n1", UID: "u1"}, {
			Name: "n2", UID: "u2", Ready: true, ControlPlane: true,
			PodCIDRs:  []netip.Prefix{netip.MustParsePrefix("10.244.2.0/24"), netip.MustParsePrefix("fd00:2::/64")},
			Addresses: []netip.Addr{netip.MustParseAddr("192.0.2.2"), netip.MustParseAddr("2001:db8::2")},
		}},
		NodeKeys:  map[string]keymgr.Signed{"n1": statement(3, "")},
		Claims:    map[string]string{"n1": "u1"},
		Reports:   map[string]string{"n1": ""},
		Rotations: map[string]RotationRequest{},
		Bundle:    []byte("PEM"),
		Trust:     Trust{Bundle: []byte("PEM"), History: []byte{}, Renewal: []byte{}, Authority: []byte{}},
		LocalPods: []kube.Pod{{
			Namespace: "default", Name: "p", UID: "pu", Node: "n2", ServiceAccount: "sa", Finished: true,
			ControllerKind: "DaemonSet", ControllerUID: "du",
			Addresses: []netip.Addr{netip.MustParseAddr("10.244.2.9"), netip.MustParseAddr("fd00:2::9")},
		}},
	}
	if diff := cmp.Diff(want, got, comparePlain); diff != "" {
		t.Errorf("snapshot (-want +got):\n%s", diff)
	}
}

func TestSnapshotOfAnEmptyClusterIsComplete(t *testing.T) {
	ctx, w := watching(t, newFake(t), WatchConfig{Node: "n1"})
	got := await(ctx, t, w, func(Snapshot) bool { return true })
	if len(got.Nodes)+len(got.NodeKeys)+len(got.Bundle)+len(got.LocalPods) != 0 {
		t.Errorf("got %+v of an empty cluster", got)
	}
}

func TestSnapshotFollowsAddChangeAndDelete(t *testing.T) {
	api := newFake(t, makeNode("n1", "u1", "10.244.1.0/24"))
	ctx, w := watching(t, api, WatchConfig{})
	nodes := api.core.CoreV1().Nodes()
	await(ctx, t, w, func(s Snapshot) bool { return len(s.Nodes) == 1 })

	if _, err := nodes.Create(ctx, makeNode("n2", "u2"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, w, func(s Snapshot) bool { return len(s.Nodes) == 2 })

	if _, err := nodes.Update(ctx, makeNode("n2", "u2", "10.244.2.0/24"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, w, func(s Snapshot) bool { return len(s.Nodes) == 2 && len(s.Nodes[1].PodCIDRs) == 1 })

	if err := nodes.Delete(ctx, "n1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, w, func(s Snapshot) bool { return len(s.Nodes) == 1 && s.Nodes[0].Name == "n2" })
}

func TestHeartbeatsAndStatusReportsAreNoNews(t *testing.T) {
	node := makeNode("n1", "u1", "10.244.1.0/24")
	beating := node.DeepCopy()
	beating.ResourceVersion = "2"
	beating.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeMemoryPressure, LastHeartbeatTime: metav1.Now()}}
	moved := makeNode("n1", "u1", "10.244.9.0/24")

	key := &v1alpha1.NodeKey{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: v1alpha1.NodeKeySpec{Payload: []byte("a")}}
	reported := key.DeepCopy()
	reported.Status.AcceptedPeers = 9
	rebundled := key.DeepCopy()
	rebundled.Status.BundleHash = "aa"
	rotated := key.DeepCopy()
	rotated.Spec.Payload = []byte("b")

	c := newFake(t).Client
	for _, tc := range []struct {
		name          string
		before, after any
		toEntry       func(any) (any, error)
		handler       func(func()) cache.ResourceEventHandler
		news          bool
	}{
		{"heartbeat", node, beating, c.nodeSource().ToEntry, noting[kube.Node], false},
		{"new range", node, moved, c.nodeSource().ToEntry, noting[kube.Node], true},
		{"status report", key, reported, c.nodeKeySource(false).ToEntry, noting[publishedKey], false},
		{"status report of no concern", key, reported, c.nodeKeySource(true).ToEntry, noting[publishedKey], false},
		{"other bundle", key, rebundled, c.nodeKeySource(true).ToEntry, noting[publishedKey], true},
		{"other bundle, for an agent", key, rebundled, c.nodeKeySource(false).ToEntry, noting[publishedKey], false},
		{"rotation", key, rotated, c.nodeKeySource(false).ToEntry, noting[publishedKey], true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			before, errBefore := tc.toEntry(tc.before)
			after, errAfter := tc.toEntry(tc.after)
			if errBefore != nil || errAfter != nil {
				t.Fatal(errBefore, errAfter)
			}
			var news bool
			tc.handler(func() { news = true }).OnUpdate(before, after)
			if news != tc.news {
				t.Errorf("news %t, want %t", news, tc.news)
			}
		})
	}
}

func noting[T any](notify func()) cache.ResourceEventHandler {
	return informer.Handler(func(_, _ *informer.Entry[T]) { notify() })
}

func TestMalformedObjectDoesNotStopTheOthers(t *testing.T) {
	bad := makeNode("n1", "u1", "10.244.1.0/24", "nonsense")
	ctx, w := watching(t, newFake(t, bad, makeNode("n2", "u2", "10.244.2.0/24")), WatchConfig{})
	got := await(ctx, t, w, func(s Snapshot) bool { return len(s.Nodes) == 2 })
	if len(got.Nodes[0].PodCIDRs) != 1 || len(got.Nodes[1].PodCIDRs) != 1 {
		t.Errorf("got %+v, want each node with its one good range", got.Nodes)
	}
}

func TestWatchLeavesNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	api := newFake(t, makeNode("n1", "u1"))
	ctx, cancel := context.WithCancel(testContext(t))
	w, err := api.Watch(ctx, WatchConfig{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	await(ctx, t, w, func(s Snapshot) bool { return len(s.Nodes) == 1 })
	cancel()
	w.Wait()
	api.Close()
	goleak.VerifyNone(t, before)
}
