// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"net/netip"
	"sync"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
)

// Enforcer keeps the data path of a node up to date with the API. See New.
type Enforcer struct {
	cfg       Config
	wake      chan struct{} // holds at most one signal
	announcer *announcer
	prefetch  prefetch // has a lock of its own

	shared
	known
	pending
	outcome
}

// shared is what Run and its callers share.
type shared struct {
	mu    sync.Mutex // guards what follows
	queue []*request
	shown status.Enforcement
}

// known is what Run, and nothing else, knows of the cluster and of this node.
type known struct {
	compiler *compile.Compiler
	tables   policy.Tables // what the data path should have
	services serviceIndex
	index    index
	leaving  leaving
	// seen is the last state of each pod that has addresses here.
	seen map[podName]objects.Pod
	// unowned are the addresses here whose endpoint policy is not the compiler's: they have no pod.
	unowned map[netip.Addr]bool
}

// pending is what Run, and nothing else, has yet to do.
type pending struct {
	dirtyPods      map[podName]bool    // pods that the compiler has to be told of
	unannounced    map[podName]bool    // pods that were connected and whose addresses the API may not show
	dirtyAddresses map[netip.Addr]bool // addresses whose owner may have changed
	waiting        []*request          // for a pod to be known
	retrying       []*request          // for what an error kept out of the data path
}

// outcome is what came of Run's writing; nothing else touches it.
type outcome struct {
	begun                 bool  // everything was written once, or as much as was possible
	policyErr, serviceErr error // what the data path lacks
	lastErr               error // of the last writing of policies
	retry                 retryTimer
	problem               string // as last reported
}

// New makes an Enforcer, which writes nothing until it runs.
func New(cfg Config) *Enforcer {
	cfg = cfg.withDefaults()
	return &Enforcer{
		cfg: cfg, wake: make(chan struct{}, 1), announcer: newAnnouncer(cfg),
		prefetch: prefetch{ask: cfg.Policies, answers: map[podName]*answer{}},
		shared:   shared{shown: status.Enforcement{Problem: starting}},
		known: known{
			compiler: compile.NewCompiler(), services: newServiceIndex(), index: newIndex(), leaving: newLeaving(),
			seen: map[podName]objects.Pod{}, unowned: map[netip.Addr]bool{},
		},
		pending: pending{dirtyPods: map[podName]bool{}, unannounced: map[podName]bool{}, dirtyAddresses: map[netip.Addr]bool{}},
		outcome: outcome{retry: newRetryTimer(cfg), problem: starting},
	}
}

const starting = "starting"

// Run enforces until ctx ends. What an earlier daemon left in the data path is
// in force until all that there is has been seen; then it is replaced by what
// is right now, without a gap.
func (e *Enforcer) Run(ctx context.Context) error {
	for !e.cfg.Feed.Synced() {
		select {
		case <-ctx.Done():
			return nil
		case <-e.cfg.Feed.Changed():
		}
	}
	if e.cfg.Announce != nil {
		var announcing sync.WaitGroup
		defer announcing.Wait()
		announcing.Go(func() { e.announcer.run(ctx) })
	}
	defer e.prefetch.running.Wait()
	for {
		e.pass(ctx)
		select {
		case <-ctx.Done():
			return nil
		case <-e.cfg.Feed.Changed():
		case <-e.wake:
		case <-e.retry.due():
			e.retry.expired()
		}
	}
}

// pass brings all that changed since the last one into the data path.
func (e *Enforcer) pass(ctx context.Context) {
	e.takeRequests()
	// A pod that comes after this look waits for the next pass: a policy that
	// was there before it may not have been taken by this one.
	known := e.look()
	refs, since := e.cfg.Feed.Take()
	began := time.Now()
	for _, ref := range refs {
		e.tell(ref)
	}
	e.releasePolicies()
	for name := range e.dirtyPods {
		e.updatePod(name)
		e.prefetchPolicies(ctx, name)
	}
	e.announce()
	clear(e.dirtyPods)
	if !e.begun {
		e.logFailure()
	}
	endpoints, wrote := e.write()
	e.answer(known, endpoints)
	e.report()
	if !wrote {
		began = time.Time{}
	}
	if len(refs) == 0 {
		since = time.Time{} // it was a pod to be connected, or an error to be made up for
	}
	e.show(since, began)
}

// tell tells the compiler, or the services, of an object's present state.
func (e *Enforcer) tell(ref kube.Ref) {
	switch ref.Kind {
	case kube.KindPod:
		e.dirtyPods[podName{ref.Namespace, ref.Name}] = true
	case kube.KindNamespace:
		e.tellNamespace(ref.Name)
	case kube.KindPolicy:
		e.tellPolicy(ref)
	case kube.KindService:
		e.tellService(ref)
	case kube.KindNode: // our zone changed, which any service may choose by
		for known := range e.services.of {
			e.tellService(known)
		}
	}
}

func (e *Enforcer) tellPolicy(ref kube.Ref) {
	p, ok := e.cfg.Objects.Policy(ref.Namespace, ref.Name)
	switch name := (podName{ref.Namespace, ref.Name}); {
	case ok:
		e.leaving.show(p)
		e.setPolicy(p)
	case !e.leaving.remove(name, e.cfg.Objects.Namespace, time.Now()):
		e.compiler.DeletePolicy(ref.Namespace, ref.Name)
	}
}

func (e *Enforcer) setPolicy(p *networkingv1.NetworkPolicy) {
	if err := e.compiler.SetPolicy(p); err != nil {
		e.cfg.Logger.Warn("policy is malformed; it isolates what it selects, and the malformed part allows nothing",
			"policy", p.Namespace+"/"+p.Name, "error", err)
		e.cfg.Malformed(p, err)
	}
}

func (e *Enforcer) tellService(ref kube.Ref) {
	s, slices, ok := e.cfg.Objects.Service(ref.Namespace, ref.Name)
	if !ok {
		e.services.drop(ref)
		return
	}
	e.services.set(ref, service.Compute(service.Topology{Node: e.cfg.Node, Zone: e.cfg.Feed.Zone()}, s, slices))
}

// updatePod tells the compiler of a pod. Addresses of pods of this node are those
// that they were connected with.
func (e *Enforcer) updatePod(name podName) {
	if name == (podName{}) {
		return // nobody
	}
	o, ok := e.object(name)
	if !ok {
		delete(e.seen, name)
		e.compiler.DeletePod(name.namespace, name.name)
		return
	}
	pod, here := o.Pod, e.index.addresses(o)
	if len(here) > 0 {
		e.seen[name] = o
	} else {
		delete(e.seen, name)
	}
	pod.Local = pod.Node == e.cfg.Node || len(here) > 0
	if pod.Local {
		pod.Addresses = here
	}
	e.compiler.SetPod(pod)
}

// prefetchPolicies asks what a pod of this node will wait for when it is connected.
func (e *Enforcer) prefetchPolicies(ctx context.Context, name podName) {
	o, ok := e.cfg.Objects.Pod(name.namespace, name.name)
	switch {
	case !ok, o.Finished, o.Deleting, len(e.index.addresses(o)) > 0:
		e.prefetch.forget(name)
	case o.Node == e.cfg.Node && !o.HostNetwork && len(o.Addresses) == 0:
		e.prefetch.see(ctx, o)
	}
}

// object returns what is known of the pod of a name. While a pod has addresses
// here, its last state outlives its object in the API, and counts for more than
// an older pod of that name that the watch still shows.
func (e *Enforcer) object(name podName) (objects.Pod, bool) {
	now, ok := e.cfg.Objects.Pod(name.namespace, name.name)
	last, remembered := e.seen[name]
	switch {
	case !remembered || len(e.index.addresses(last)) == 0:
		return now, ok
	case !ok, len(e.index.addresses(now)) == 0 && now.Created.Before(last.Created):
		return last, true
	}
	return now, true
}

// logFailure says, before the first tables are written, which pods will be cut off.
func (e *Enforcer) logFailure() {
	for name, addresses := range e.index.pods {
		if _, known := e.seen[name]; !known {
			e.cfg.Logger.Warn("pod has an address but is not in the API any more: nothing gets in or out of it",
				"pod", name.namespace+"/"+name.name, "addresses", addresses)
		}
	}
}
