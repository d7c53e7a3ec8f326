// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"time"

	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/internal/backoff"
	"github.com/sealane/sealane/policy"
)

// Attachment is a pod of this node and its addresses.
type Attachment struct {
	Pod       cni.PodRef // zero if nobody said which: no policy can select it
	Addresses []netip.Addr
}

// request is something that Run is asked to do. Requests are carried out in the
// order in which they were made.
type request struct {
	Attachment
	what verb
	// found is what the API server said when it was asked.
	found objects.Pod
	// done is closed when the endpoint policy is in the data path; nil if nobody waits.
	done chan struct{}
	// missing says what keeps it waiting, and policies which ones the pod's namespace
	// has. The Enforcer's mutex guards both.
	missing  string
	policies []*networkingv1.NetworkPolicy
}

type verb int

const (
	attach verb = iota
	detach
	inform // of found
)

// Attach makes the endpoint policy and the identity of a pod, and returns when they
// are in the data path. It waits for the API to show the pod as long as ctx lasts;
// the error then wraps ErrNotKnown, and the addresses are detached. Until it
// returns nil, and after an error, nothing gets in or out of the pod.
//
// A pod without a name gets an endpoint policy that isolates nothing, and no identity:
// policies select by namespace and labels, and it has neither.
func (e *Enforcer) Attach(ctx context.Context, pod cni.PodRef, addresses []netip.Addr) error {
	r := &request{Attachment: Attachment{pod, slices.Clone(addresses)}, done: make(chan struct{}), missing: "nothing has been seen of the cluster"}
	var ok bool
	if r.policies, ok = e.prefetch.policies(ctx, pod); !ok {
		r.policies, _ = e.present(ctx, pod)
	}
	e.enqueue(r)
	pauses := backoff.Backoff{First: e.cfg.AskAfter}
	ask := time.NewTimer(pauses.Next())
	defer ask.Stop()
	for {
		select {
		case <-r.done:
			return nil
		case <-ask.C:
			e.ask(ctx, pod)
			e.lookAgain(ctx, r)
			ask.Reset(pauses.Next())
		case <-ctx.Done():
			return e.giveUp(r)
		}
	}
}

func (e *Enforcer) giveUp(r *request) error {
	select {
	case <-r.done: // at the same time
		return nil
	default:
	}
	e.Detach(r.Addresses)
	e.mu.Lock()
	defer e.mu.Unlock()
	return fmt.Errorf("%w: pod %s: %s", ErrNotKnown, r.Pod, r.missing)
}

// ask asks the API server for a pod. What it answers is used until the watch
// has caught up.
func (e *Enforcer) ask(ctx context.Context, pod cni.PodRef) {
	if e.cfg.Ask == nil || pod.IsZero() {
		return
	}
	found, err := e.cfg.Ask(ctx, pod.Namespace, pod.Name)
	if err != nil {
		e.cfg.Logger.Warn("pod is not known yet, and cannot be asked for", "pod", pod.String(), "error", err)
		return
	}
	if same(pod, found) {
		e.enqueue(&request{Attachment: Attachment{Pod: pod}, what: inform, found: found})
	}
}

// present asks which policies there are where a pod is. Not ok: nobody can say,
// and a pod cannot wait for what nobody knows of.
func (e *Enforcer) present(ctx context.Context, pod cni.PodRef) (all []*networkingv1.NetworkPolicy, ok bool) {
	if e.cfg.Policies == nil || pod.IsZero() {
		return nil, false
	}
	all, err := e.cfg.Policies(ctx, pod.Namespace)
	if err != nil {
		e.cfg.Logger.Warn("policies are taken as the watch has them", "pod", pod.String(), "error", err)
	}
	return all, err == nil
}

// lookAgain drops what a pod waits for in vain: a policy that has been deleted
// before the watch ever brought it.
func (e *Enforcer) lookAgain(ctx context.Context, r *request) {
	all, ok := e.present(ctx, r.Pod)
	if !ok {
		return
	}
	e.mu.Lock()
	r.policies = all
	e.mu.Unlock()
	e.signal()
}

// Detach removes endpoint policy and identity of addresses, soon. Until then and after
// it they let nothing through that was not allowed before.
func (e *Enforcer) Detach(addresses []netip.Addr) {
	e.enqueue(&request{Attachment: Attachment{Addresses: slices.Clone(addresses)}, what: detach})
}

// Restore tells of the pods that an earlier daemon connected. It must be called
// before Run, with all of them: their endpoint policies stay as they are until Run has seen
// the cluster, and those of others go then. A pod that the API does not show by
// then loses its endpoint policy, so that nothing gets in or out of it.
func (e *Enforcer) Restore(all []Attachment) {
	for _, a := range all {
		e.enqueue(&request{Attachment: a})
	}
}

func (e *Enforcer) enqueue(r *request) {
	e.mu.Lock()
	e.queue = append(e.queue, r)
	e.mu.Unlock()
	e.signal()
}

func (e *Enforcer) signal() {
	select {
	case e.wake <- struct{}{}:
	default: // Run has not taken the last one
	}
}

func (e *Enforcer) takeRequests() {
	e.mu.Lock()
	queue := e.queue
	e.queue = nil
	e.mu.Unlock()
	for _, r := range queue {
		e.apply(r)
	}
}

func (e *Enforcer) apply(r *request) {
	switch r.what {
	case inform:
		e.informed(r)
	case attach:
		for _, a := range r.Addresses {
			e.moved(a, e.index.enter(a, r.Pod))
		}
		e.dirtyPods[nameOf(r.Pod)] = true
		if !r.Pod.IsZero() {
			e.unannounced[nameOf(r.Pod)] = true
		}
		if r.done != nil {
			e.waiting = append(e.waiting, r)
		}
	case detach:
		for _, a := range r.Addresses {
			e.moved(a, e.index.strike(a))
		}
	}
}

// moved notes that an address is not any more what it was.
func (e *Enforcer) moved(address netip.Addr, formerly podName) {
	e.dirtyAddresses[address] = true
	e.dirtyPods[formerly] = true
}

// informed uses what the API server said of a pod, unless the watch shows it now.
func (e *Enforcer) informed(r *request) {
	name := nameOf(r.Pod)
	if now, ok := e.cfg.Objects.Pod(name.namespace, name.name); ok && same(r.Pod, now) || len(e.index.addresses(r.found)) == 0 {
		return
	}
	e.seen[name] = r.found
	e.dirtyPods[name] = true
}

// look returns those of the waiting whose pod is known, and drops those that
// have been detached again.
func (e *Enforcer) look() []*request {
	var known []*request
	e.waiting = slices.DeleteFunc(e.waiting, func(r *request) bool {
		if !e.wanted(r) {
			return true
		}
		missing := e.missing(r.Pod)
		e.mu.Lock()
		if missing == "" {
			missing = e.behind(r.policies)
		}
		r.missing = missing
		e.mu.Unlock()
		if missing == "" {
			known = append(known, r)
		}
		return missing == ""
	})
	return known
}

// wanted reports whether the pod of a request has its addresses still.
func (e *Enforcer) wanted(r *request) bool {
	return !slices.ContainsFunc(r.Addresses, func(a netip.Addr) bool { return e.index.owners[a] != r.Pod })
}

// missing says what has to be seen before it is known which policies select a
// pod; empty: nothing.
func (e *Enforcer) missing(pod cni.PodRef) string {
	if pod.IsZero() {
		return ""
	}
	o, ok := e.object(nameOf(pod))
	switch _, space := e.cfg.Objects.Namespace(pod.Namespace); {
	case !ok:
		return "the API server has not shown the pod"
	case !same(pod, o):
		return fmt.Sprintf("the API server shows another pod of that name, with UID %s", o.UID)
	case !space:
		return "the API server has not shown its namespace"
	}
	return ""
}

// behind says which of the policies the watch has yet to bring; empty: none.
func (e *Enforcer) behind(policies []*networkingv1.NetworkPolicy) string {
	for _, p := range policies {
		now, ok := e.cfg.Objects.Policy(p.Namespace, p.Name)
		if !ok || now.UID == p.UID && now.Generation < p.Generation {
			return fmt.Sprintf("the watch of policies has not brought %s yet", p.Name)
		}
	}
	return ""
}

// answer ends the waiting of those whose endpoint policies the data path has. While it
// lacks something, these are only those whose endpoint policies were just written; the
// others wait until everything is written.
func (e *Enforcer) answer(known []*request, written map[netip.Addr]policy.EndpointPolicy) {
	waiting := append(e.retrying, known...)
	e.retrying = nil
	for _, r := range waiting {
		switch {
		case !e.wanted(r):
		case e.policyErr == nil, e.lastErr == nil && guarded(r, written):
			close(r.done)
		default:
			e.mu.Lock()
			r.missing = e.policyErr.Error()
			e.mu.Unlock()
			e.retrying = append(e.retrying, r)
		}
	}
}

func guarded(r *request, written map[netip.Addr]policy.EndpointPolicy) bool {
	return !slices.ContainsFunc(r.Addresses, func(a netip.Addr) bool {
		_, ok := written[a]
		return !ok
	})
}
