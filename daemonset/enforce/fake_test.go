// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/policy"
)

// fakeAPI is a Feed and Objects: what a test puts into it is shown at once.
type fakeAPI struct {
	changed chan struct{}

	mu         sync.Mutex // guards what follows
	synced     bool
	zone       string
	dirty      map[kube.Ref]bool
	since      time.Time
	pods       map[podName]objects.Pod
	namespaces map[string]objects.Namespace
	policies   map[podName]*networkingv1.NetworkPolicy
	services   map[podName]*corev1.Service
	slices     map[podName][]*discoveryv1.EndpointSlice
}

func newFakeAPI() *fakeAPI {
	return &fakeAPI{
		changed: make(chan struct{}, 1), synced: true, dirty: map[kube.Ref]bool{}, pods: map[podName]objects.Pod{},
		namespaces: map[string]objects.Namespace{}, policies: map[podName]*networkingv1.NetworkPolicy{},
		services: map[podName]*corev1.Service{}, slices: map[podName][]*discoveryv1.EndpointSlice{},
	}
}

// change lets the test change the state, and then names what changed.
func (f *fakeAPI) change(do func(), refs ...kube.Ref) {
	f.mu.Lock()
	do()
	if len(f.dirty) == 0 {
		f.since = time.Now()
	}
	for _, r := range refs {
		f.dirty[r] = true
	}
	f.mu.Unlock()
	select {
	case f.changed <- struct{}{}:
	default:
	}
}

func (f *fakeAPI) setPod(o objects.Pod) {
	f.change(func() { f.pods[podName{o.Namespace, o.Name}] = o }, kube.Ref{Kind: kube.KindPod, Namespace: o.Namespace, Name: o.Name})
}

func (f *fakeAPI) deletePod(namespace, name string) {
	f.change(func() { delete(f.pods, podName{namespace, name}) }, kube.Ref{Kind: kube.KindPod, Namespace: namespace, Name: name})
}

func (f *fakeAPI) setNamespace(name string, labels map[string]string) {
	f.change(func() { f.namespaces[name] = objects.Namespace{Labels: labels} }, kube.Ref{Kind: kube.KindNamespace, Name: name})
}

// endNamespace begins the deletion of a namespace, or ends it.
func (f *fakeAPI) endNamespace(name string, gone bool) {
	f.change(func() {
		space := f.namespaces[name]
		space.Deleting = true
		f.namespaces[name] = space
		if gone {
			delete(f.namespaces, name)
		}
	}, kube.Ref{Kind: kube.KindNamespace, Name: name})
}

func (f *fakeAPI) setPolicy(p *networkingv1.NetworkPolicy) {
	f.change(func() { f.policies[podName{p.Namespace, p.Name}] = p }, kube.Ref{Kind: kube.KindPolicy, Namespace: p.Namespace, Name: p.Name})
}

func (f *fakeAPI) deletePolicy(namespace, name string) {
	f.change(func() { delete(f.policies, podName{namespace, name}) }, kube.Ref{Kind: kube.KindPolicy, Namespace: namespace, Name: name})
}

func serviceRef(name string) kube.Ref {
	return kube.Ref{Kind: kube.KindService, Namespace: "shop", Name: name}
}

func (f *fakeAPI) Changed() <-chan struct{} { return f.changed }

func (f *fakeAPI) Take() ([]kube.Ref, time.Time) {
	f.mu.Lock()
	defer f.mu.Unlock()
	refs, since := slices.Collect(maps.Keys(f.dirty)), f.since
	clear(f.dirty)
	return refs, since
}

func (f *fakeAPI) Synced() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.synced
}

func (f *fakeAPI) Zone() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.zone
}

func (f *fakeAPI) Pod(namespace, name string) (objects.Pod, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	o, ok := f.pods[podName{namespace, name}]
	return o, ok
}

func (f *fakeAPI) Namespace(name string) (objects.Namespace, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	space, ok := f.namespaces[name]
	return space, ok
}

func (f *fakeAPI) Policy(namespace, name string) (*networkingv1.NetworkPolicy, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	p, ok := f.policies[podName{namespace, name}]
	return p, ok
}

func (f *fakeAPI) Service(namespace, name string) (*corev1.Service, []*discoveryv1.EndpointSlice, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	s, ok := f.services[podName{namespace, name}]
	return s, f.slices[podName{namespace, name}], ok
}

// fakeDatapath is a Datapath whose tables are maps. It fails where a test says,
// and then writes nothing of what it was given.
type fakeDatapath struct {
	t *testing.T

	mu       sync.Mutex // guards what follows
	tables   policy.Tables
	services map[service.Frontend]service.Service
	syncs    int
	applies  int
	fail     func(policy.Changes) error // nil: nothing fails
	failSync error
	failServ error
	// guards is every guard that an address was ever given.
	guards map[netip.Addr][]policy.EndpointPolicy
	hold   chan struct{} // not nil: each ApplyPolicy waits for a value
}

func newFakeDatapath(t *testing.T) *fakeDatapath {
	d := &fakeDatapath{t: t, services: map[service.Frontend]service.Service{}, guards: map[netip.Addr][]policy.EndpointPolicy{}}
	d.tables.Apply(policy.Changes{}) // makes empty ones
	return d
}

func (d *fakeDatapath) SyncPolicy(want policy.Tables) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.syncs++
	if d.failSync != nil {
		return d.failSync
	}
	d.tables = policy.Tables{}
	d.tables.Apply(policy.Changes{Set: want})
	for a, g := range want.Endpoints {
		d.guards[a] = append(d.guards[a], g)
	}
	return nil
}

func (d *fakeDatapath) ApplyPolicy(c policy.Changes) error {
	if d.hold != nil {
		<-d.hold
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.applies++
	for _, a := range c.Removed.Endpoints {
		if _, both := c.Set.Endpoints[a]; both {
			d.t.Errorf("the guard of %v is both set and taken away", a)
		}
	}
	if d.fail != nil {
		if err := d.fail(c); err != nil {
			return err
		}
	}
	d.tables.Apply(c)
	for a, g := range c.Set.Endpoints {
		d.guards[a] = append(d.guards[a], g)
	}
	return nil
}

func (d *fakeDatapath) SyncServices(want map[service.Frontend]service.Service) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failServ == nil {
		d.services = maps.Clone(want)
	}
	return d.failServ
}

func (d *fakeDatapath) ApplyServices(set map[service.Frontend]service.Service, removed []service.Frontend) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.failServ != nil {
		return d.failServ
	}
	for _, f := range removed {
		delete(d.services, f)
	}
	maps.Copy(d.services, set)
	return nil
}

func (d *fakeDatapath) guard(a netip.Addr) (policy.EndpointPolicy, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	g, ok := d.tables.Endpoints[a]
	return g, ok
}

func (d *fakeDatapath) identity(a netip.Addr) policy.PeerID {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.tables.Identities[a]
}

// snapshot returns a copy of the tables.
func (d *fakeDatapath) snapshot() policy.Tables {
	d.mu.Lock()
	defer d.mu.Unlock()
	var t policy.Tables
	t.Apply(policy.Changes{Set: d.tables})
	return t
}
