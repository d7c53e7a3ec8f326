// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr"
)

// NodeKeys returns every NodeKey object, from the API server itself.
func (c *Client) NodeKeys(ctx context.Context) ([]v1alpha1.NodeKey, error) {
	list, err := c.conn.NodeKeys.List(ctx, metav1.ListOptions{})
	if err != nil {
		return nil, kube.Wrap("list nodekeys", err)
	}
	return list.Items, nil
}

// NodeKey returns the statement that a node has published, unverified;
// ErrNotFound if it has published none.
func (c *Client) NodeKey(ctx context.Context, name string) (keymgr.Signed, error) {
	object, err := c.conn.NodeKeys.Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return keymgr.Signed{}, kube.Wrap("read nodekey "+name, err)
	}
	return signedOf(object.Spec), nil
}

// PublishNodeKey makes the node's NodeKey object carry the statement, if it does not do so
// already. It returns ErrNewer if a statement with a higher sequence number is published
// for this node UID, and ErrFork if another one with the same number is. It replaces what
// an earlier node of the same name left.
func (c *Client) PublishNodeKey(ctx context.Context, id keymgr.NodeID, signed keymgr.Signed) error {
	doing := "publish nodekey " + id.Name
	want, err := newNodeKey(id, signed)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	again := func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
	return kube.Wrap(doing, retry.OnError(retry.DefaultBackoff, again, func() error {
		return c.putNodeKey(ctx, want, checkSuccession)
	}))
}

// OverwriteNodeKey does the same whatever the object carries, for a node that finds a
// statement there that it never signed.
func (c *Client) OverwriteNodeKey(ctx context.Context, id keymgr.NodeID, signed keymgr.Signed) error {
	doing := "overwrite nodekey " + id.Name
	want, err := newNodeKey(id, signed)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	anyway := func(_, _ v1alpha1.NodeKeySpec) error { return nil }
	return kube.Wrap(doing, retry.RetryOnConflict(retry.DefaultBackoff, func() error { return c.putNodeKey(ctx, want, anyway) }))
}

func (c *Client) putNodeKey(ctx context.Context, want *v1alpha1.NodeKey, check func(have, want v1alpha1.NodeKeySpec) error) error {
	have, err := c.conn.NodeKeys.Get(ctx, want.Name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		_, err = c.conn.NodeKeys.Create(ctx, want, metav1.CreateOptions{})
		return err
	}
	if err != nil {
		return err
	}
	if err := check(have.Spec, want.Spec); err != nil {
		return err
	}
	if equality.Semantic.DeepEqual(have.Spec, want.Spec) {
		return nil
	}
	have.Spec = want.Spec
	_, err = c.conn.NodeKeys.Update(ctx, have, metav1.UpdateOptions{})
	return err
}

func checkSuccession(have, want v1alpha1.NodeKeySpec) error {
	switch {
	case have.NodeUID != want.NodeUID:
		return nil
	case have.Sequence > want.Sequence:
		return fmt.Errorf("%w: sequence %d, not %d", ErrNewer, have.Sequence, want.Sequence)
	case have.Sequence == want.Sequence && string(have.Payload) != string(want.Payload):
		return fmt.Errorf("%w: %d", ErrFork, want.Sequence)
	}
	return nil
}

// sequenceOf reads the sequence number out of this node's own statement.
func sequenceOf(payload []byte) (int64, error) {
	var statement struct {
		Seq int64 `json:"seq"`
	}
	if err := json.Unmarshal(payload, &statement); err != nil {
		return 0, fmt.Errorf("parse statement: %w", err)
	}
	if statement.Seq < 1 {
		return 0, fmt.Errorf("parse statement: seq is %d, want at least 1", statement.Seq)
	}
	return statement.Seq, nil
}

func newNodeKey(id keymgr.NodeID, signed keymgr.Signed) (*v1alpha1.NodeKey, error) {
	sequence, err := sequenceOf(signed.Payload)
	if err != nil {
		return nil, err
	}
	return &v1alpha1.NodeKey{
		// No owner reference to the Node: clusters that guard those would want
		// the agent to have the right to delete. The controller collects.
		ObjectMeta: metav1.ObjectMeta{Name: id.Name},
		Spec: v1alpha1.NodeKeySpec{
			Payload: signed.Payload, Signature: signed.Signature, CertificateChain: signed.Chain,
			Continuity: linksTo(signed.Continuity), NodeUID: id.UID, Sequence: sequence,
		},
	}, nil
}

func linksTo(links []keymgr.Link) []v1alpha1.ContinuityLink {
	var out []v1alpha1.ContinuityLink
	for _, l := range links {
		out = append(out, v1alpha1.ContinuityLink{Key: l.Key, Signature: l.Signature})
	}
	return out
}

func signedOf(spec v1alpha1.NodeKeySpec) keymgr.Signed {
	s := keymgr.Signed{Payload: spec.Payload, Signature: spec.Signature, Chain: spec.CertificateChain}
	for _, l := range spec.Continuity {
		s.Continuity = append(s.Continuity, keymgr.Link{Key: l.Key, Signature: l.Signature})
	}
	return s
}

// PublishStatus reports the agent's view in the node's NodeKey object. It
// writes only what changed, keeps the transition times of conditions that did
// not, and cuts what the API server would refuse for its length. ErrNotFound
// means that no statement has been published yet.
func (c *Client) PublishStatus(ctx context.Context, node string, status v1alpha1.NodeKeyStatus) error {
	want := boundStatus(status)
	return kube.Wrap("publish status of nodekey "+node, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		have, err := c.conn.NodeKeys.Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		next := want
		next.Conditions = mergeConditions(have.Status.Conditions, want.Conditions)
		if equality.Semantic.DeepEqual(have.Status, next) {
			return nil
		}
		have.Status = next
		_, err = c.conn.NodeKeys.UpdateStatus(ctx, have, metav1.UpdateOptions{})
		return err
	}))
}

func mergeConditions(have, want []metav1.Condition) []metav1.Condition {
	out := slices.Clone(have)
	out = slices.DeleteFunc(out, func(c metav1.Condition) bool { return meta.FindStatusCondition(want, c.Type) == nil })
	for _, condition := range want {
		meta.SetStatusCondition(&out, condition)
	}
	return out
}

func boundStatus(s v1alpha1.NodeKeyStatus) v1alpha1.NodeKeyStatus {
	out := *s.DeepCopy()
	slices.SortStableFunc(out.Refused, func(a, b v1alpha1.RefusedStatement) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Node, b.Node), cmp.Compare(a.Reason, b.Reason))
	})
	out.Refused = out.Refused[:min(len(out.Refused), v1alpha1.MaxRefused)]
	return out
}

// DeleteNodeKey deletes the PodAddresses and then the NodeKey of a node that is gone, if
// the NodeKey is still that of nodeUID. It is no error if the NodeKey is gone already, or if
// the node's successor has taken it over: that one stays.
func (c *Client) DeleteNodeKey(ctx context.Context, name, nodeUID string) error {
	doing := "delete nodekey " + name
	have, err := c.conn.NodeKeys.Get(ctx, name, metav1.GetOptions{})
	if apierrors.IsNotFound(err) {
		return nil
	}
	if err != nil {
		return kube.Wrap(doing, err)
	}
	if have.Spec.NodeUID != nodeUID {
		return nil
	}
	if err := c.conn.PodAddresses.Delete(ctx, name, metav1.DeleteOptions{}); err != nil && !apierrors.IsNotFound(err) {
		return kube.Wrap("delete podaddresses "+name, err)
	}
	err = c.conn.NodeKeys.Delete(ctx, name, metav1.DeleteOptions{Preconditions: &metav1.Preconditions{
		UID: &have.UID, ResourceVersion: &have.ResourceVersion,
	}})
	if apierrors.IsNotFound(err) {
		return nil
	}
	return kube.Wrap(doing, err)
}
