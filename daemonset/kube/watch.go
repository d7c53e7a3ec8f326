// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"cmp"
	"context"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/keymgr"
)

// WatchConfig says what a Watcher watches.
type WatchConfig struct {
	// Node is the name of the node whose pods a snapshot lists; empty lists
	// none.
	Node string
	// Reports also follows what the agents report in the status of NodeKeys,
	// which is news to nobody but the controller.
	Reports bool
	// Revocations lists the orders to revoke, too. Agents may not read them.
	Revocations bool
}

// Snapshot is all that is known at one moment. It belongs to the caller,
// except for the bytes inside NodeKeys and Bundle, which must not be changed.
type Snapshot struct {
	Nodes     []Node                     // by name
	NodeKeys  map[string]keymgr.Signed   // by the object's name, unverified
	Claims    map[string]string          // node UID that each NodeKey object claims, by its name
	Reports   map[string]string          // with WatchConfig.Reports: hash of the bundle in use, by the NodeKey's name
	Rotations map[string]RotationRequest // by node name; not one for each
	Bundle    []byte                     // trust bundle, PEM; empty if there is none
	Trust     Trust                      // what else is published beside the bundle
	LocalPods []Pod                      // of WatchConfig.Node, by namespace and name
	Revoked   RevocationRecord           // what is published of revocations, unverified
	Orders    []Revocation               // oldest first, if WatchConfig asks for them
}

// Watcher follows what the API server has. See Client.Watch.
type Watcher struct {
	*notifier
	nodes    *feed[Node]
	nodeKeys *feed[publishedKey]
	trust    *feed[Trust]
	records  *feed[RevocationRecord]
	pods     *feed[Pod]        // nil if not watched
	orders   *feed[Revocation] // nil if not watched
}

type publishedKey struct {
	name, nodeUID string
	signed        keymgr.Signed
	bundleHash    string // only with WatchConfig.Reports
	rotation      RotationRequest
}

// Watch follows nodes, NodeKeys, the trust bundle, the revocation list and what
// cfg asks for until ctx ends. While the API server is away the last snapshot stays.
func (c *Client) Watch(ctx context.Context, cfg WatchConfig) (*Watcher, error) {
	ctx = c.withLog(ctx)
	w := &Watcher{notifier: newNotifier(c)}
	var err error
	if w.nodes, err = start(ctx, w.notifier, c.nodeSource()); err != nil {
		return nil, err
	}
	if w.nodeKeys, err = start(ctx, w.notifier, c.nodeKeySource(cfg.Reports)); err != nil {
		return nil, err
	}
	if w.trust, err = start(ctx, w.notifier, c.trustSource()); err != nil {
		return nil, err
	}
	if w.records, err = start(ctx, w.notifier, c.recordSource()); err != nil {
		return nil, err
	}
	if cfg.Revocations {
		if w.orders, err = start(ctx, w.notifier, c.revocationSource()); err != nil {
			return nil, err
		}
	}
	if cfg.Node == "" {
		return w, nil
	}
	w.pods, err = start(ctx, w.notifier, c.podSource(cfg.Node))
	return w, err
}

// Snapshot returns what is known now, and whether that is complete: false
// until each kind has been listed once.
func (w *Watcher) Snapshot() (Snapshot, bool) {
	complete := w.synced()
	s := Snapshot{
		Nodes: w.nodes.values(), NodeKeys: map[string]keymgr.Signed{}, Claims: map[string]string{},
		Reports: map[string]string{}, Rotations: map[string]RotationRequest{},
	}
	slices.SortFunc(s.Nodes, func(a, b Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, key := range w.nodeKeys.values() {
		s.NodeKeys[key.name] = key.signed
		s.Claims[key.name], s.Reports[key.name] = key.nodeUID, key.bundleHash
		if key.rotation != (RotationRequest{}) {
			s.Rotations[key.name] = key.rotation
		}
	}
	for _, trust := range w.trust.values() {
		if len(trust.Bundle) > 0 {
			s.Bundle, s.Trust = trust.Bundle, trust
		}
	}
	s.Revoked = theRecord(w.records)
	if w.orders != nil {
		s.Orders = sortedRevocations(w.orders.values())
	}
	if w.pods != nil {
		s.LocalPods = w.pods.values()
		slices.SortFunc(s.LocalPods, func(a, b Pod) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	return s, complete
}

func (c *Client) nodeSource() source[*corev1.Node, Node] {
	api := c.core.CoreV1().Nodes()
	return source[*corev1.Node, Node]{
		example: &corev1.Node{},
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return api.List(ctx, o)
		},
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, o)
		},
		convert:  nodeOf,
		indexers: cache.Indexers{byAddress: byEach(func(n Node) []netip.Addr { return n.Addresses })},
	}
}

func (c *Client) nodeKeySource(reports bool) source[*v1alpha1.NodeKey, publishedKey] {
	return source[*v1alpha1.NodeKey, publishedKey]{
		example: &v1alpha1.NodeKey{},
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return c.nodeKeys.List(ctx, o)
		},
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return c.nodeKeys.Watch(ctx, o)
		},
		convert: func(o *v1alpha1.NodeKey) (publishedKey, error) {
			key := publishedKey{name: o.Name, nodeUID: o.Spec.NodeUID, signed: signedOf(o.Spec), rotation: rotationOf(o.Annotations)}
			if reports {
				key.bundleHash = o.Status.BundleHash
			}
			return key, nil
		},
	}
}

func (c *Client) trustSource() source[*corev1.ConfigMap, Trust] {
	api := c.core.CoreV1().ConfigMaps(c.namespace)
	return source[*corev1.ConfigMap, Trust]{
		example:  &corev1.ConfigMap{},
		selector: fields.OneTermEqualSelector("metadata.name", TrustConfigMap).String(),
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return api.List(ctx, o)
		},
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, o)
		},
		convert: func(o *corev1.ConfigMap) (Trust, error) { return trustOf(o), nil },
	}
}

func (c *Client) podSource(node string) source[*corev1.Pod, Pod] {
	api := c.core.CoreV1().Pods(metav1.NamespaceAll)
	return source[*corev1.Pod, Pod]{
		example:  &corev1.Pod{},
		selector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
		list: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return api.List(ctx, o)
		},
		watch: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, o)
		},
		convert: podOf,
	}
}
