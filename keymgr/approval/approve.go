// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package approval

import (
	"slices"
	"strings"
	"time"

	"github.com/sealane/sealane/keymgr"
)

const (
	// MinLifetime is the shortest lifetime of a node certificate; Kubernetes refuses
	// shorter expirationSeconds too.
	MinLifetime = 10 * time.Minute
	// DefaultLeafLifetime is the longest lifetime of a node certificate unless
	// configured otherwise.
	DefaultLeafLifetime = 7 * 24 * time.Hour
	// DefaultMaxPerHour is how many certificates a node UID gets in an hour, or
	// renewalsPerLife in the longest life of one if that is more.
	DefaultMaxPerHour = 10
	// A node renews after half the lifetime, which begins five minutes early: with the
	// shortest lifetime it asks every two and a half minutes.
	renewalsPerLife = 5
)

// ReadClaims reads from a request's extra fields who made it. Each field must be there
// exactly once. A token that is not bound to a pod lacks them and proves no node.
func ReadClaims(r Request) (Claims, error) {
	var values [4]string
	for i, key := range []string{ExtraNodeName, ExtraNodeUID, ExtraPodName, ExtraPodUID} {
		v := r.Extra[key]
		if len(v) != 1 || v[0] == "" {
			return Claims{}, deny(ReasonExtra, "spec.extra[%q] is %q, want exactly one value; "+
				"request with the token of the agent's own pod, on Kubernetes 1.30 or later", key, v)
		}
		values[i] = v[0]
	}
	return Claims{
		Node:    keymgr.NodeID{Name: values[0], UID: values[1]},
		PodName: values[2], PodUID: values[3],
	}, nil
}

// Approve checks that a request comes from the agent of the node that it names and asks
// for nothing but that node's certificate. The Order that it returns is what may be
// issued. A refusal is an ErrDenied with a *Denial.
//
// It relies on the facts that it is given: read them for this very request, and call
// Approve again right before issuing.
func Approve(r Request, p Policy, f Facts) (Order, error) {
	p = p.withDefaults()
	if err := checkRequester(r, p); err != nil {
		return Order{}, err
	}
	claims, err := ReadClaims(r)
	if err != nil {
		return Order{}, err
	}
	if err := checkNode(claims, f); err != nil {
		return Order{}, err
	}
	if err := checkPod(claims, p, f.Pod); err != nil {
		return Order{}, err
	}
	if n, found := f.Revoked.Node(claims.Node.UID); found && n.Blocked {
		return Order{}, deny(ReasonNodeRevoked, "node %s is revoked (%s); sealane readmit %s brings it back", claims.Node, n.Reason, claims.Node.Name)
	}
	key, err := checkCSR(r.CSR, claims.Node.URI(p.TrustDomain).String())
	if err != nil {
		return Order{}, err
	}
	if err := checkKeyRevoked(key, f.Revoked); err != nil {
		return Order{}, err
	}
	lifetime, err := checkTerms(r, p)
	if err != nil {
		return Order{}, err
	}
	if err := checkHistory(claims.Node, p, f); err != nil {
		return Order{}, err
	}
	if owner, known := f.KeyOwners[key.hash]; known && owner != claims.Node {
		return Order{}, deny(ReasonKeyOfOtherNode, "spec.request: public key %x is the key of node %s; "+
			"delete the copied key directory on node %s", key.hash[:8], owner, claims.Node.Name)
	}
	if err := checkPodRanges(*f.Node, p, f); err != nil {
		return Order{}, err
	}
	order := Order{
		node: claims.Node, trustDomain: p.TrustDomain, key: key.public,
		podCIDRs: slices.Clone(f.Node.PodCIDRs), lifetime: lifetime,
	}
	order.addresses, order.refused = vouchFor(*f.Node, p, f)
	return order, nil
}

func (p Policy) withDefaults() Policy {
	if p.SignerName == "" {
		p.SignerName = SignerName
	}
	if p.MaxLifetime == 0 {
		p.MaxLifetime = DefaultLeafLifetime
	}
	if p.MaxPerHour == 0 {
		p.MaxPerHour = max(DefaultMaxPerHour, int(renewalsPerLife*time.Hour/p.MaxLifetime))
	}
	return p
}

func checkRequester(r Request, p Policy) error {
	if r.SignerName != p.SignerName {
		return deny(ReasonSignerName, "spec.signerName is %q, want %q", r.SignerName, p.SignerName)
	}
	if want := "system:serviceaccount:" + p.Namespace + ":" + p.ServiceAccount; r.Username != want {
		return deny(ReasonUsername, "spec.username is %q, want %q; only the agent may request node certificates", r.Username, want)
	}
	return nil
}

func checkNode(c Claims, f Facts) error {
	if err := c.Node.Validate(); err != nil {
		return deny(ReasonNode, "spec.extra: %v", err)
	}
	if f.Node == nil {
		return deny(ReasonNode, "node %q does not exist", c.Node.Name)
	}
	if f.Node.ID != c.Node {
		return deny(ReasonNode, "node is %s, the request comes from %s; restart the agent pod if the node was deleted and created again", f.Node.ID, c.Node)
	}
	return nil
}

func checkPod(c Claims, p Policy, pod *Pod) error {
	switch {
	case pod == nil:
		return deny(ReasonPod, "pod %s/%s does not exist", p.Namespace, c.PodName)
	case pod.Name != c.PodName || pod.UID != c.PodUID:
		return deny(ReasonPod, "pod is %s/%s, the request comes from %s/%s", pod.Name, pod.UID, c.PodName, c.PodUID)
	case pod.NodeName != c.Node.Name:
		return deny(ReasonPod, "pod %s runs on node %q, the request names node %q", pod.Name, pod.NodeName, c.Node.Name)
	case pod.ServiceAccount != p.ServiceAccount:
		return deny(ReasonPod, "pod %s has service account %q, want %q", pod.Name, pod.ServiceAccount, p.ServiceAccount)
	case pod.Deleting:
		return deny(ReasonPod, "pod %s is being deleted; its successor will send a request of its own", pod.Name)
	case p.DaemonSetUID == "" || pod.ControllerKind != "DaemonSet" || pod.ControllerUID != p.DaemonSetUID:
		return deny(ReasonPod, "pod %s is controlled by %s %q, want the agent's DaemonSet %q",
			pod.Name, pod.ControllerKind, pod.ControllerUID, p.DaemonSetUID)
	}
	return nil
}

func checkKeyRevoked(key csrKey, l keymgr.RevocationList) error {
	for _, n := range l.Nodes {
		if slices.Contains(n.Keys, keymgr.Hash(key.hash)) {
			return deny(ReasonKeyRevoked, "spec.request: public key %x of node %s is revoked (%s); "+
				"its agent creates another key by itself; if it does not, delete its key directory and restart it", key.hash[:8], n.ID(), n.Reason)
		}
	}
	return nil
}

// checkTerms checks the usages and the lifetime that the request asks for.
func checkTerms(r Request, p Policy) (time.Duration, error) {
	want := []string{"client auth", "digital signature", "server auth"}
	if have := slices.Sorted(slices.Values(r.Usages)); !slices.Equal(have, want) {
		return 0, deny(ReasonUsages, "spec.usages is %q, want exactly %q", strings.Join(have, ", "), strings.Join(want, ", "))
	}
	switch {
	case r.Expiration == 0:
		return p.MaxLifetime, nil
	case r.Expiration < MinLifetime || r.Expiration > p.MaxLifetime:
		return 0, deny(ReasonExpiration, "spec.expirationSeconds is %s, want %s to %s", r.Expiration, MinLifetime, p.MaxLifetime)
	}
	return r.Expiration, nil
}

// checkHistory refuses an agent that asks too often. Certificates from before a
// revocation do not count: an operator has looked and has readmitted the node.
func checkHistory(id keymgr.NodeID, p Policy, f Facts) error {
	recent := 0
	revoked, _ := f.Revoked.Node(id.UID)
	for _, t := range f.Issued {
		if f.Now.Sub(t) < time.Hour && t.After(revoked.At) {
			recent++
		}
	}
	if recent >= p.MaxPerHour {
		return deny(ReasonRateLimit, "node %s got %d certificates within an hour, at most %d; "+
			"find out why its agent asks again", id, recent, p.MaxPerHour)
	}
	return nil
}
