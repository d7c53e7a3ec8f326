// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/policy"
)

func makePod(name, node string, addresses ...string) *corev1.Pod {
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name, UID: "u-1", Labels: map[string]string{"app": name}},
		Spec:       corev1.PodSpec{NodeName: node},
	}
	for _, a := range addresses {
		pod.Status.PodIPs = append(pod.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return pod
}

func makeSlice(name, service string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "shop", Name: name, Labels: map[string]string{discoveryv1.LabelServiceName: service}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.1.5"}, NodeName: new("n1"), TargetRef: &corev1.ObjectReference{Name: "web"}}},
	}
}

// following starts a watch of objects on node n1 and returns when all that
// there is at its start has been taken.
func following(t *testing.T, objects ...runtime.Object) (context.Context, *fakeAPI, *Objects) {
	t.Helper()
	api := newFake(t, objects...)
	ctx, o := api.follow(t)
	api.server.AwaitWatches(ctx, t, 10)
	for !o.Synced() {
		awaitChange(ctx, t, o)
	}
	return ctx, api, o
}

// follow starts a watch of objects on node n1, which ends with the test.
func (f *fakeAPI) follow(t *testing.T) (context.Context, *Objects) {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	w, err := cluster.New(f.Client).Watch(ctx, cluster.WatchConfig{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := Watch(ctx, f.Client, Config{Node: "n1", Nodes: w})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cancel(); o.Wait(); w.Wait() })
	return ctx, o
}

func awaitChange(ctx context.Context, t *testing.T, o *Objects) {
	t.Helper()
	select {
	case <-o.Changed():
	case <-ctx.Done():
		t.Fatal("nothing changes any more")
	}
}

// awaitDirty takes until each of want was named, and refuses all others.
func awaitDirty(ctx context.Context, t *testing.T, o *Objects, want ...kube.Ref) {
	t.Helper()
	missing := slices.Clone(want)
	for {
		refs, _ := o.Take()
		for _, r := range refs {
			if !slices.Contains(want, r) {
				t.Errorf("%v is named, which did not change", r)
			}
			missing = slices.DeleteFunc(missing, func(m kube.Ref) bool { return m == r })
		}
		if len(missing) == 0 {
			return
		}
		awaitChange(ctx, t, o)
	}
}

func addrs(texts ...string) []netip.Addr {
	var out []netip.Addr
	for _, t := range texts {
		out = append(out, netip.MustParseAddr(t))
	}
	return out
}

// TestNamespaceThatIsBeingDeleted: it has its labels until the end.
func TestNamespaceThatIsBeingDeleted(t *testing.T) {
	o := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}}}
	for _, deleting := range []bool{false, true} {
		if deleting {
			o.DeletionTimestamp = &metav1.Time{Time: time.Now()}
		}
		if n, err := namespaceOf(o); err != nil || n.Deleting != deleting || n.Labels["team"] != "a" {
			t.Errorf("deleting %t: %+v, %v", deleting, n, err)
		}
	}
}

func podRef(name string) kube.Ref { return kube.Ref{Kind: kube.KindPod, Namespace: "shop", Name: name} }

func TestObjectsNamesAllThereIsOnce(t *testing.T) {
	before := time.Now()
	_, _, o := following(t,
		makeNode("n1", "u1", "10.244.1.0/24"), makePod("web", "n1", "10.244.1.5"), makePod("db", "n9"),
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "shop", Labels: map[string]string{"team": "a"}}},
		&networkingv1.NetworkPolicy{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deny"}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}}, makeSlice("web-1", "web"), makeSlice("other-1", "other"),
	)
	got, since := o.Take()
	want := []kube.Ref{
		{Kind: kube.KindNamespace, Namespace: "", Name: "shop"},
		{Kind: kube.KindPolicy, Namespace: "shop", Name: "deny"},
		podRef("db"),
		podRef("web"),
		{Kind: kube.KindService, Namespace: "shop", Name: "other"},
		{Kind: kube.KindService, Namespace: "shop", Name: "web"},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("named (-want +got):\n%s", diff)
	}
	if since.Before(before) || since.After(time.Now()) {
		t.Errorf("dirty since %v, which is not in the time of this test", since)
	}
	if again, _ := o.Take(); len(again) > 0 {
		t.Errorf("named again: %v", again)
	}
	if space, ok := o.Namespace("shop"); !ok || space.Labels["team"] != "a" || space.Deleting {
		t.Errorf("namespace: got %v, %t", space, ok)
	}
	if p, ok := o.Policy("shop", "deny"); !ok || p.Name != "deny" {
		t.Errorf("policy: got %v, %t", p, ok)
	}
	if _, ok := o.Pod("shop", "nobody"); ok {
		t.Error("a pod that never was is there")
	}
	if _, _, ok := o.Service("shop", "other"); ok {
		t.Error("a service of which there is only a slice is there")
	}
}

func TestObjectsFollowsChanges(t *testing.T) {
	ctx, api, o := following(t, makeNode("n1", "u1", "10.244.1.0/24"), makePod("web", "n1"), makePod("db", "n1"))
	o.Take()
	pods := api.core.CoreV1().Pods("shop")

	beating := makePod("db", "n1")
	beating.ResourceVersion = "7"
	beating.Annotations = map[string]string{"note": "x"}
	beating.Status.Conditions = []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}
	labelled := makePod("web", "n1", "10.244.1.5")
	labelled.Labels["tier"] = "front"
	for _, pod := range []*corev1.Pod{beating, labelled} { // in this order: when web is news, db was not
		if _, err := pods.Update(ctx, pod, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	awaitDirty(ctx, t, o, podRef("web"))
	got, _ := o.Pod("shop", "web")
	if got.Labels["tier"] != "front" || !slices.Equal(got.Addresses, addrs("10.244.1.5")) {
		t.Errorf("got %+v after the change", got)
	}
	if err := pods.Delete(ctx, "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitDirty(ctx, t, o, podRef("web"))
	if _, ok := o.Pod("shop", "web"); ok {
		t.Error("a deleted pod is still there")
	}
}

func TestPodHasOnlyAddressesOfItsNode(t *testing.T) {
	ctx, api, o := following(t,
		makeNode("n1", "u1", "10.244.1.0/24", "fd00:1::/64"),
		makePod("honest", "n1", "10.244.1.5", "fd00:1::5"), makePod("thief", "n1", "10.244.2.5", "fd00:1::6"), makePod("early", "n2", "10.244.2.7"),
		makeNode("n3", "u3"), makePod("fresh", "n3", "10.244.3.7"),
	)
	o.Take()
	for name, want := range map[string][]netip.Addr{
		"honest": addrs("10.244.1.5", "fd00:1::5"), "thief": addrs("fd00:1::6"), "early": nil, "fresh": nil,
	} {
		if got, _ := o.Pod("shop", name); !slices.Equal(got.Addresses, want) {
			t.Errorf("%s has %v, want %v", name, got.Addresses, want)
		}
	}
	if o.Refused() != 1 {
		t.Errorf("%d pods claim what is not theirs, want 1", o.Refused())
	}
	if _, err := api.core.CoreV1().Nodes().Create(ctx, makeNode("n2", "u2", "10.244.2.0/24"), metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitDirty(ctx, t, o, podRef("early"))
	if got, _ := o.Pod("shop", "early"); !slices.Equal(got.Addresses, addrs("10.244.2.7")) {
		t.Errorf("with its node the pod has %v", got.Addresses)
	}
	if _, err := api.core.CoreV1().Nodes().Update(ctx, makeNode("n3", "u3", "10.244.3.0/24"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitDirty(ctx, t, o, podRef("fresh"))
	if got, _ := o.Pod("shop", "fresh"); !slices.Equal(got.Addresses, addrs("10.244.3.7")) {
		t.Errorf("with its node's ranges the pod has %v", got.Addresses)
	}
	if err := api.core.CoreV1().Pods("shop").Delete(ctx, "thief", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitDirty(ctx, t, o, podRef("thief"))
	if o.Refused() != 0 {
		t.Errorf("%d pods claim what is not theirs, after the only one ended", o.Refused())
	}
}

func TestServiceHasItsSlices(t *testing.T) {
	ctx, api, o := following(t,
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"}},
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "db"}},
		makeSlice("b", "web"), makeSlice("a", "web"), makeSlice("c", "db"),
	)
	o.Take()
	names := func(service string) []string {
		_, found, _ := o.Service("shop", service)
		var out []string
		for _, s := range found {
			out = append(out, s.Name)
			if len(s.Endpoints) != 1 || s.Endpoints[0].TargetRef != nil || *s.Endpoints[0].NodeName != "n1" {
				t.Errorf("slice %s was trimmed to %+v", s.Name, s.Endpoints)
			}
		}
		return out
	}
	if got := names("web"); !slices.Equal(got, []string{"a", "b"}) {
		t.Errorf("web has slices %v", got)
	}
	if _, err := api.core.DiscoveryV1().EndpointSlices("shop").Update(ctx, makeSlice("b", "db"), metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	awaitDirty(ctx, t, o, kube.Ref{Kind: kube.KindService, Namespace: "shop", Name: "web"}, kube.Ref{Kind: kube.KindService, Namespace: "shop", Name: "db"})
	if web, db := names("web"), names("db"); !slices.Equal(web, []string{"a"}) || !slices.Equal(db, []string{"b", "c"}) {
		t.Errorf("after the move web has slices %v, db has %v", web, db)
	}
}

func TestZoneOfThisNode(t *testing.T) {
	ctx, api, o := following(t, makeNode("n1", "u1"), makeNode("n2", "u2"))
	o.Take()
	for _, name := range []string{"n2", "n1"} { // n2's zone is no news
		node := makeNode(name, "u")
		node.Labels = map[string]string{corev1.LabelTopologyZone: "east"}
		if _, err := api.core.CoreV1().Nodes().Update(ctx, node, metav1.UpdateOptions{}); err != nil {
			t.Fatal(err)
		}
	}
	awaitDirty(ctx, t, o, kube.Ref{Kind: kube.KindNode, Name: "n1"})
	if o.Zone() != "east" {
		t.Errorf("zone is %q", o.Zone())
	}
}

func TestPodObject(t *testing.T) {
	always := corev1.ContainerRestartPolicyAlways
	port := func(name string, number int32, p corev1.Protocol) corev1.Container {
		return corev1.Container{Ports: []corev1.ContainerPort{{Name: name, ContainerPort: number, Protocol: p}, {ContainerPort: 1}}}
	}
	sidecar, setup := port("proxy", 15001, "SCTP"), port("setup", 99, "TCP")
	sidecar.RestartPolicy = &always
	created := time.Date(2026, 11, 22, 8, 0, 0, 0, time.UTC)
	pod := makePod("web", "n1", "10.244.1.5", "::ffff:10.244.1.6")
	pod.CreationTimestamp = metav1.NewTime(created.Local())
	pod.DeletionTimestamp = &pod.CreationTimestamp
	pod.Annotations = map[string]string{corev1.MirrorPodAnnotationKey: "static"}
	pod.Spec.Containers = []corev1.Container{port("http", 8080, ""), port("dns", 53, "UDP"), port("odd", 1, "QUIC")}
	pod.Spec.InitContainers = []corev1.Container{setup, sidecar}
	want := Pod{
		Pod: policy.Pod{
			Namespace: "shop", Name: "web", UID: "u-1", Labels: map[string]string{"app": "web"}, Node: "n1", Created: created,
			Ports:     []policy.NamedPort{{Name: "http", Protocol: 6, Port: 8080}, {Name: "dns", Protocol: 17, Port: 53}, {Name: "proxy", Protocol: 132, Port: 15001}},
			Addresses: addrs("10.244.1.5", "10.244.1.6"),
		},
		Deleting: true, StaticUID: "static",
	}
	got, err := podOf(pod)
	if diff := cmp.Diff(want, got, cmp.Comparer(func(a, b netip.Addr) bool { return a == b })); diff != "" || err != nil {
		t.Errorf("error %v, pod (-want +got):\n%s", err, diff)
	}
	pod.Status.Phase = corev1.PodSucceeded
	if got, _ := podOf(pod); !got.Finished || got.Addresses != nil {
		t.Errorf("a finished pod has addresses %v", got.Addresses)
	}
	pod.Status.Phase, pod.Spec.HostNetwork = corev1.PodRunning, true
	if got, _ := podOf(pod); !got.HostNetwork || got.Addresses != nil {
		t.Errorf("a pod of the host's network has addresses %v", got.Addresses)
	}
	bad := makePod("web", "n1", "10.244.1.5", "nonsense")
	if got, err := podOf(bad); err == nil || len(got.Addresses) != 1 {
		t.Errorf("malformed address: got %v, error %v", got.Addresses, err)
	}
}

func TestTrimmedObjects(t *testing.T) {
	policy, _ := policyOf(&networkingv1.NetworkPolicy{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: "deny", ResourceVersion: "5", Labels: map[string]string{"a": "b"},
			Annotations: map[string]string{"keep": "me", corev1.LastAppliedConfigAnnotation: "{}"},
		},
		Spec: networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Ingress"}},
	})
	service, _ := serviceOf(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web", Labels: map[string]string{"a": "b"}, ResourceVersion: "5"},
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.1", Selector: map[string]string{"app": "web"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, NodePort: 30000}},
		},
		Status: corev1.ServiceStatus{Conditions: []metav1.Condition{{}}},
	})
	for name, diff := range map[string]string{
		"policy": cmp.Diff(&networkingv1.NetworkPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "deny", Annotations: map[string]string{"keep": "me"}},
			Spec:       networkingv1.NetworkPolicySpec{PolicyTypes: []networkingv1.PolicyType{"Ingress"}},
		}, policy),
		"service": cmp.Diff(&corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "web"},
			Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
		}, service),
	} {
		if diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestPodIsAskedFor(t *testing.T) {
	api := newFake(t, makePod("web", "n1", "10.244.1.5"))
	got, err := api.PodObject(t.Context(), "shop", "web")
	if err != nil || got.UID != "u-1" {
		t.Errorf("got %+v, error %v", got, err)
	}
	if _, err := api.PodObject(t.Context(), "shop", "nobody"); !errors.Is(err, kube.ErrNotFound) {
		t.Errorf("a pod that never was: error %v", err)
	}
}

func TestObjectsNeedNodes(t *testing.T) {
	if _, err := Watch(t.Context(), newFake(t).Client, Config{Node: "n1"}); err == nil {
		t.Error("objects are followed without nodes")
	}
}

func TestObjectsLeaveNoGoroutine(t *testing.T) {
	before := goleak.IgnoreCurrent()
	api := newFake(t, makePod("web", "n1"))
	ctx, cancel := context.WithCancel(testContext(t))
	w, err := cluster.New(api.Client).Watch(ctx, cluster.WatchConfig{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := Watch(ctx, api.Client, Config{Node: "n1", Nodes: w})
	if err != nil {
		t.Fatal(err)
	}
	for !o.Synced() {
		awaitChange(ctx, t, o)
	}
	cancel()
	o.Wait()
	w.Wait()
	api.Close()
	goleak.VerifyNone(t, before)
}
