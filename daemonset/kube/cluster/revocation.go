// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"cmp"
	"context"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/api/equality"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"
	"k8s.io/client-go/util/retry"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/informer"
	"github.com/sealane/sealane/keymgr"
)

// Revocation is an order to revoke a node.
type Revocation struct {
	Name, UID string // of the object
	Created   time.Time
	Node      keymgr.NodeID
	Reason    keymgr.RevocationReason
	Message   string
	Status    RevocationStatus
}

// RevocationStatus is how far an order has been carried out.
type RevocationStatus struct {
	// Number is that of the first list which carries the revocation, 0 if none does.
	Number    uint64
	RevokedAt time.Time
	Keys      []keymgr.Hash
	Serials   []keymgr.CertificateSerial
}

// Listed reports whether the list carries the revocation.
func (s RevocationStatus) Listed() bool { return s.Number > 0 }

func revocationOf(o *v1alpha1.Revocation) (Revocation, error) {
	r := Revocation{
		Name: o.Name, UID: string(o.UID), Created: o.CreationTimestamp.Time,
		Node:   keymgr.NodeID{Name: o.Spec.NodeName, UID: o.Spec.NodeUID},
		Reason: cmp.Or(keymgr.RevocationReason(o.Spec.Reason), keymgr.ReasonUnspecified), Message: o.Spec.Message,
		Status: RevocationStatus{Number: uint64(max(o.Status.Number, 0))},
	}
	if at := o.Status.RevokedAt; at != nil {
		r.Status.RevokedAt = at.Time
	}
	for _, s := range o.Status.Serials {
		r.Status.Serials = append(r.Status.Serials, keymgr.CertificateSerial{Issuer: s.Issuer, Serial: s.Serial})
	}
	for _, text := range o.Status.KeyHashes {
		var hash keymgr.Hash
		if err := hash.UnmarshalText([]byte(text)); err != nil {
			return r, fmt.Errorf("%w: revocation %s: status.keyHashes: %w", kube.ErrBadConfig, o.Name, err)
		}
		r.Status.Keys = append(r.Status.Keys, hash)
	}
	if err := r.Node.Validate(); err != nil {
		return r, fmt.Errorf("%w: revocation %s: spec: %w", kube.ErrBadConfig, o.Name, err)
	}
	return r, nil
}

func (s RevocationStatus) object() v1alpha1.RevocationStatus {
	at := metav1.NewTime(s.RevokedAt)
	out := v1alpha1.RevocationStatus{
		Number: int64(s.Number), RevokedAt: &at,
		Conditions: []metav1.Condition{{
			Type: v1alpha1.ConditionListed, Status: metav1.ConditionTrue, Reason: v1alpha1.ConditionListed,
			Message: "the signed list carries the revocation",
		}},
	}
	for _, n := range s.Serials {
		out.Serials = append(out.Serials, v1alpha1.CertificateSerial{Issuer: n.Issuer, Serial: n.Serial})
	}
	for _, k := range s.Keys {
		out.KeyHashes = append(out.KeyHashes, hex.EncodeToString(k[:]))
	}
	return out
}

// sortedRevocations puts the oldest first.
func sortedRevocations(all []Revocation) []Revocation {
	slices.SortFunc(all, func(a, b Revocation) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	return all
}

func (c *Client) revocationSource() informer.Source[*v1alpha1.Revocation, Revocation] {
	return informer.Source[*v1alpha1.Revocation, Revocation]{
		Example: &v1alpha1.Revocation{},
		List:    informer.AsObject(c.conn.Revocations.List),
		Watch:   c.conn.Revocations.Watch,
		Convert: revocationOf,
	}
}

// Revocations returns every order to revoke, oldest first, from the API server
// itself.
func (c *Client) Revocations(ctx context.Context) ([]Revocation, error) {
	list, err := c.conn.Revocations.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, kube.Wrap("list revocations", err)
	}
	out := make([]Revocation, 0, len(list.Items))
	for i := range list.Items {
		r, err := revocationOf(&list.Items[i])
		if err != nil {
			return nil, err
		}
		out = append(out, r)
	}
	return sortedRevocations(out), nil
}

// Revocation returns one order, ErrNotFound if there is none of that name.
func (c *Client) Revocation(ctx context.Context, name string) (Revocation, error) {
	object, err := c.conn.Revocations.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Revocation{}, kube.Wrap("read revocation "+name, err)
	}
	return revocationOf(object)
}

// CreateRevocation gives an order to revoke a node. The object has the node's UID
// for a name, so that one node is revoked once: ErrConflict says that it is already.
func (c *Client) CreateRevocation(ctx context.Context, r Revocation) (Revocation, error) {
	object, err := c.conn.Revocations.Create(ctx, &v1alpha1.Revocation{
		ObjectMeta: metav1.ObjectMeta{Name: r.Node.UID},
		Spec: v1alpha1.RevocationSpec{
			NodeName: r.Node.Name, NodeUID: r.Node.UID, Reason: v1alpha1.RevocationReason(r.Reason), Message: r.Message,
		},
	}, metav1.CreateOptions{})
	if err != nil {
		return Revocation{}, kube.Wrap("revoke node "+r.Node.Name, err)
	}
	return revocationOf(object)
}

// DeleteRevocation takes an order back, which readmits the node. ErrNotFound says
// that it was gone already.
func (c *Client) DeleteRevocation(ctx context.Context, name string) error {
	return kube.Wrap("delete revocation "+name, c.conn.Revocations.Delete(ctx, name, metav1.DeleteOptions{}))
}

// ReportRevocation writes into an order how far it was carried out. An order that
// is gone, or that was given anew under the same name, needs no report.
func (c *Client) ReportRevocation(ctx context.Context, r Revocation) error {
	want := r.Status.object()
	return kube.Wrap("report on revocation "+r.Name, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		have, err := c.conn.Revocations.Get(ctx, r.Name, metav1.GetOptions{})
		if err != nil {
			return err
		}
		next := want
		next.Conditions = mergeConditions(have.Status.Conditions, want.Conditions)
		if string(have.UID) != r.UID || equality.Semantic.DeepEqual(have.Status, next) {
			return nil
		}
		have.Status = next
		_, err = c.conn.Revocations.UpdateStatus(ctx, have, metav1.UpdateOptions{})
		return err
	}))
}

// AwaitListed waits until the published list carries an order, as long as ctx
// lasts.
func (c *Client) AwaitListed(ctx context.Context, name string) (Revocation, error) {
	selected := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", name).String()
		return o
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return c.conn.Revocations.List(ctx, selected(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.conn.Revocations.Watch(ctx, selected(o))
		},
	}, c.conn.Core)
	var found Revocation
	_, err := watchtools.UntilWithSync(c.conn.WithLog(ctx), lw, &v1alpha1.Revocation{}, nil, func(e watch.Event) (bool, error) {
		object, ok := e.Object.(*v1alpha1.Revocation)
		if !ok || object.Name != name {
			return false, nil
		}
		if e.Type == watch.Deleted {
			return false, fmt.Errorf("revocation %s was deleted: %w", name, kube.ErrNotFound)
		}
		var err error
		found, err = revocationOf(object)
		return found.Status.Listed(), err
	})
	if err != nil && ctx.Err() != nil {
		return found, fmt.Errorf("wait for the list to carry revocation %s: %w", name, context.Cause(ctx))
	}
	return found, err
}
