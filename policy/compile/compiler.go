// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package compile

import (
	"cmp"
	"errors"
	"maps"
	"net/netip"
	"slices"

	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/sealane/sealane/policy"
)

// Compiler keeps [policy.Tables] up to what it was told last. Telling it something
// costs little; [Compiler.Changes] then works in proportion to what that
// touches. Not for concurrent use. Zero is not usable: [NewCompiler].
type Compiler struct {
	pods   map[podName]*podState
	spaces map[string]*namespace
	owners map[netip.Addr][]*podState

	networkPolicies networkPolicies
	tiers           []Evaluator // in order; they end with accepting everything

	peers  peerIndex
	groups groupIndex
	ports  portIndex

	setNumbers allocator[policy.SetID]
	sets       map[string]*ruleSet
	closed     int        // sets that are Closed in the tables
	left       []*ruleSet // by endpoint policies, in the last call of settle: released in the next

	identities delta[netip.Addr, policy.PeerID]
	blocks     delta[netip.Prefix, policy.PeerID]
	endpoints  delta[netip.Addr, policy.EndpointPolicy]
	setTable   delta[policy.SetID, policy.Set]
	rules      delta[policy.Rule, policy.PortsID]

	changedPods map[*podState]struct{} // identity, addresses and rule sets to be settled
	changedSets map[*podState]struct{} // rule sets to be settled
	readdressed map[netip.Addr]struct{}
	touched     map[pair]struct{}
}

type podName struct{ namespace, name string }

// namespace is what is known of one, before it is announced too.
type namespace struct {
	labels     labels.Set
	known      bool
	pods       map[*podState]struct{}
	local      map[*podState]struct{}
	identities map[*peer]struct{}
}

func (n *namespace) empty() bool {
	return !n.known && len(n.pods)+len(n.identities) == 0
}

// NewCompiler returns a compiler that knows of nothing.
func NewCompiler() *Compiler {
	known := networkPolicies{}
	return &Compiler{
		networkPolicies: known,
		tiers:           []Evaluator{known},
		pods:            map[podName]*podState{},
		spaces:          map[string]*namespace{},
		owners:          map[netip.Addr][]*podState{},
		peers:           newPeerIndex(),
		groups:          newGroupIndex(),
		ports:           newPortIndex(),
		setNumbers:      newAllocator[policy.SetID]("set"),
		sets:            map[string]*ruleSet{},
		identities:      newDelta[netip.Addr, policy.PeerID](netip.Addr.Compare),
		blocks:          newDelta[netip.Prefix, policy.PeerID](netip.Prefix.Compare),
		endpoints:       newDelta[netip.Addr, policy.EndpointPolicy](netip.Addr.Compare),
		setTable:        newDelta[policy.SetID, policy.Set](cmp.Compare[policy.SetID]),
		rules:           newDelta[policy.Rule, policy.PortsID](compareRules),
		changedPods:     map[*podState]struct{}{},
		changedSets:     map[*podState]struct{}{},
		readdressed:     map[netip.Addr]struct{}{},
		touched:         map[pair]struct{}{},
	}
}

func compareRules(a, b policy.Rule) int {
	return cmp.Or(cmp.Compare(a.Set, b.Set), cmp.Compare(a.Peer, b.Peer))
}

func (c *Compiler) space(name string) *namespace {
	space := c.spaces[name]
	if space == nil {
		space = &namespace{
			pods: map[*podState]struct{}{}, local: map[*podState]struct{}{},
			identities: map[*peer]struct{}{},
		}
		c.spaces[name] = space
	}
	return space
}

// SetNamespace tells the labels of a namespace. Until then its pods have no
// identity: a selector that wants a label to be absent would match them wrongly.
func (c *Compiler) SetNamespace(name string, labels map[string]string) {
	c.relabel(c.space(name), true, labels)
}

// DeleteNamespace forgets the labels of a namespace. Its pods and policies go
// by themselves.
func (c *Compiler) DeleteNamespace(name string) {
	space := c.spaces[name]
	if space == nil {
		return
	}
	c.relabel(space, false, nil)
	c.forgetEmpty(name)
}

func (c *Compiler) relabel(space *namespace, known bool, labels map[string]string) {
	if space.known == known && maps.Equal(space.labels, labels) {
		return
	}
	space.known = known
	space.labels = maps.Clone(labels)
	for pod := range space.pods {
		c.changedPods[pod] = struct{}{}
	}
}

func (c *Compiler) forgetEmpty(name string) {
	if space := c.spaces[name]; space != nil && space.empty() {
		delete(c.spaces, name)
	}
}

// SetPolicy tells of a new or changed policy. The error is that of [policy.Parse]; the policy is in
// force all the same.
func (c *Compiler) SetPolicy(np *networkingv1.NetworkPolicy) error {
	parsed, err := policy.Parse(np)
	c.markSelected(np.Namespace, c.networkPolicies.set(np.Namespace, np.Name, parsed))
	c.markSelected(np.Namespace, parsed)
	return err
}

// DeletePolicy forgets a policy.
func (c *Compiler) DeletePolicy(namespace, name string) {
	c.markSelected(namespace, c.networkPolicies.remove(namespace, name))
}

func (c *Compiler) markSelected(namespace string, p *policy.Policy) {
	space := c.spaces[namespace]
	if p == nil || space == nil {
		return
	}
	for pod := range space.local {
		if p.Selects.Matches(labels.Set(pod.Labels)) {
			c.changedSets[pod] = struct{}{}
		}
	}
}

// Changes returns what has changed since the last call, or since [NewCompiler]: no step, one, or
// two, to be taken one after the other. The second removes what only former endpoint policies
// need, so that a data path between one state and the next never lacks a rule: see
// [policy.Changes].
func (c *Compiler) Changes() []policy.Changes {
	var steps []policy.Changes
	for range 2 {
		c.settle()
		if ch := c.take(); ch.Len() > 0 {
			steps = append(steps, ch)
		}
	}
	return steps
}

func (c *Compiler) take() (ch policy.Changes) {
	ch.Set.Identities, ch.Removed.Identities = c.identities.take()
	ch.Set.Blocks, ch.Removed.Blocks = c.blocks.take()
	ch.Set.Endpoints, ch.Removed.Endpoints = c.endpoints.take()
	ch.Set.Sets, ch.Removed.Sets = c.setTable.take()
	ch.Set.Rules, ch.Removed.Rules = c.rules.take()
	ch.Set.Ports, ch.Removed.Ports = c.ports.table.take()
	return ch
}

// Tables returns the whole. It does not count as a call of [Compiler.Changes].
func (c *Compiler) Tables() policy.Tables {
	c.settle()
	c.settle()
	return policy.Tables{
		Identities: c.identities.all(),
		Blocks:     c.blocks.all(),
		Endpoints:  c.endpoints.all(),
		Sets:       c.setTable.all(),
		Rules:      c.rules.all(),
		Ports:      c.ports.table.all(),
	}
}

// Err says which things were refused a number as of the last call of Changes or
// Tables, wrapping [ErrCollision]; nil if none, as is to be expected.
func (c *Compiler) Err() error {
	var errs []error
	for _, refused := range []map[string]error{c.peers.numbers.refused, c.setNumbers.refused, c.ports.numbers.refused} {
		for _, key := range slices.Sorted(maps.Keys(refused)) {
			errs = append(errs, refused[key])
		}
	}
	return errors.Join(errs...)
}
