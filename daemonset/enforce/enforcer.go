// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/daemonset/status"
	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/policy"
	"github.com/sealane/sealane/policy/compile"
)

// Enforcer keeps the data path of a node up to the API. See New.
type Enforcer struct {
	cfg  Config
	wake chan struct{} // holds at most one signal

	mu    sync.Mutex // guards what follows
	queue []*request
	shown status.Enforcement

	// What follows is Run's alone.

	compiler  *compile.Compiler
	tables    policy.Tables // what the data path should have
	services  serviceBook
	book      book
	announcer *announcer
	foresight foresight // of its own lock
	// seen is the last state of each pod that has addresses here.
	seen map[podName]objects.Pod
	// extras are the addresses here whose guard is not the compiler's: nobody's.
	extras map[netip.Addr]bool

	dirty   map[podName]bool    // pods that the compiler has to be told of
	fresh   map[podName]bool    // pods that were connected and that the API may not tell the addresses of
	loose   map[netip.Addr]bool // addresses that may have become nobody's, or somebody's
	waiting []*request          // for a pod to be known
	unsure  []*request          // for what an error kept out of the data path

	begun                 bool  // the whole was written once, or as much as was possible
	policyErr, serviceErr error // what the data path lacks
	lastErr               error // of the last writing of policies
	retry                 backoff
	problem               string // as last reported
}

// New makes an Enforcer, which writes nothing until it runs.
func New(cfg Config) *Enforcer {
	cfg = cfg.withDefaults()
	return &Enforcer{
		cfg: cfg, wake: make(chan struct{}, 1),
		compiler: compile.NewCompiler(), services: newServiceBook(), book: newBook(),
		seen: map[podName]objects.Pod{}, extras: map[netip.Addr]bool{},
		dirty: map[podName]bool{}, fresh: map[podName]bool{}, announcer: newAnnouncer(cfg), loose: map[netip.Addr]bool{},
		foresight: foresight{ask: cfg.Policies, answers: map[podName]*answer{}},
		retry:     backoff{first: cfg.RetryAfter},
		problem:   starting, shown: status.Enforcement{Problem: starting},
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
	defer e.foresight.running.Wait()
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
	for name := range e.dirty {
		e.settle(name)
		e.foresee(ctx, name)
	}
	e.announce()
	clear(e.dirty)
	if !e.begun {
		e.lament()
	}
	guards, wrote := e.write()
	e.answer(known, guards)
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
		e.dirty[podName{ref.Namespace, ref.Name}] = true
	case kube.KindNamespace:
		if labels, ok := e.cfg.Objects.Namespace(ref.Name); ok {
			e.compiler.SetNamespace(ref.Name, labels)
		} else {
			e.compiler.DeleteNamespace(ref.Name)
		}
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
	if !ok {
		e.compiler.DeletePolicy(ref.Namespace, ref.Name)
		return
	}
	if err := e.compiler.SetPolicy(p); err != nil {
		e.cfg.Logger.Warn("policy is malformed; it isolates what it selects, and the malformed part allows nothing",
			"policy", ref.Namespace+"/"+ref.Name, "error", err)
		e.cfg.Malformed(p, err)
	}
}

func (e *Enforcer) tellService(ref kube.Ref) {
	s, slices, ok := e.cfg.Objects.Service(ref.Namespace, ref.Name)
	if !ok {
		e.services.drop(ref)
		return
	}
	e.services.set(ref, service.Compute(service.Place{Node: e.cfg.Node, Zone: e.cfg.Feed.Zone()}, s, slices))
}

// settle tells the compiler of a pod. Addresses of pods of this node are those
// that they were connected with.
func (e *Enforcer) settle(name podName) {
	if name == (podName{}) {
		return // nobody
	}
	o, ok := e.object(name)
	if !ok {
		delete(e.seen, name)
		e.compiler.DeletePod(name.namespace, name.name)
		return
	}
	pod, here := o.Pod, e.book.addresses(o)
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

// foresee asks what a pod of this node will wait for when it is connected.
func (e *Enforcer) foresee(ctx context.Context, name podName) {
	o, ok := e.cfg.Objects.Pod(name.namespace, name.name)
	switch {
	case !ok, o.Finished, o.Deleting, len(e.book.addresses(o)) > 0:
		e.foresight.forget(name)
	case o.Node == e.cfg.Node && !o.HostNetwork && len(o.Addresses) == 0:
		e.foresight.see(ctx, o)
	}
}

// object returns what is known of the pod of a name. While a pod has addresses
// here, its last state outlives its object in the API, and counts for more than
// an older pod of that name that the watch still shows.
func (e *Enforcer) object(name podName) (objects.Pod, bool) {
	now, ok := e.cfg.Objects.Pod(name.namespace, name.name)
	last, remembered := e.seen[name]
	switch {
	case !remembered || len(e.book.addresses(last)) == 0:
		return now, ok
	case !ok, len(e.book.addresses(now)) == 0 && now.Created.Before(last.Created):
		return last, true
	}
	return now, true
}

// lament says, before the first tables are written, which pods will be cut off.
func (e *Enforcer) lament() {
	for name, addresses := range e.book.pods {
		if _, known := e.seen[name]; !known {
			e.cfg.Logger.Warn("pod has an address but is not in the API any more: nothing gets in or out of it",
				"pod", name.namespace+"/"+name.name, "addresses", addresses)
		}
	}
}
