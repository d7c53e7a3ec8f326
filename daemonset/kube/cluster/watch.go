// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"cmp"
	"context"
	"fmt"
	"net/netip"
	"slices"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/client-go/tools/cache"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/informer"
	"github.com/sealane/sealane/keymgr"
)

// apiService is the Service of the API servers, in the namespace default, and the
// EndpointSlice that they keep for it.
const apiService = "kubernetes"

// WatchConfig says what a Watcher watches.
type WatchConfig struct {
	// Node is the name of the node whose pods a snapshot lists; empty lists
	// none.
	Node string
	// Reports also follows what the agents report in the status of NodeKeys. Only the
	// controller uses it.
	Reports bool
	// Revocations also follows the orders to revoke. Agents may not read them.
	Revocations bool
}

// Snapshot is all that is known at one moment. It belongs to the caller,
// except for the bytes inside NodeKeys and Bundle, which must not be changed.
type Snapshot struct {
	Nodes     []kube.Node                // by name
	NodeKeys  map[string]keymgr.Signed   // by the object's name, unverified
	Claims    map[string]string          // node UID that each NodeKey object claims, by its name
	Reports   map[string]string          // with WatchConfig.Reports: hash of the bundle in use, by the NodeKey's name
	Rotations map[string]RotationRequest // by node name; not one for each
	Bundle    []byte                     // trust bundle, PEM; empty if there is none
	Trust     Trust                      // what else is published beside the bundle
	LocalPods []kube.Pod                 // of WatchConfig.Node, by namespace and name
	Revoked   RevocationRecord           // what is published of revocations, unverified
	Orders    []Revocation               // oldest first, if WatchConfig asks for them
	APIServer []netip.Addr               // endpoints of the Service default/kubernetes, sorted
}

// Watcher follows what the API server has. See Client.Watch.
type Watcher struct {
	*informer.Notifier
	nodes    *informer.Feed[kube.Node]
	nodeKeys *informer.Feed[publishedKey]
	trust    *informer.Feed[Trust]
	records  *informer.Feed[RevocationRecord]
	pods     *informer.Feed[kube.Pod]   // nil if not watched
	orders   *informer.Feed[Revocation] // nil if not watched
	servers  *informer.Feed[[]netip.Addr]
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
	ctx = c.conn.WithLog(ctx)
	w := &Watcher{Notifier: informer.NewNotifier(c.conn)}
	var err error
	if w.nodes, err = informer.Start(ctx, w.Notifier, c.nodeSource()); err != nil {
		return nil, err
	}
	if w.nodeKeys, err = informer.Start(ctx, w.Notifier, c.nodeKeySource(cfg.Reports)); err != nil {
		return nil, err
	}
	if w.trust, err = informer.Start(ctx, w.Notifier, c.trustSource()); err != nil {
		return nil, err
	}
	if w.records, err = informer.Start(ctx, w.Notifier, c.recordSource()); err != nil {
		return nil, err
	}
	if w.servers, err = informer.Start(ctx, w.Notifier, c.serverSource()); err != nil {
		return nil, err
	}
	if cfg.Revocations {
		if w.orders, err = informer.Start(ctx, w.Notifier, c.revocationSource()); err != nil {
			return nil, err
		}
	}
	if cfg.Node == "" {
		return w, nil
	}
	w.pods, err = informer.Start(ctx, w.Notifier, c.podSource(cfg.Node))
	return w, err
}

// Snapshot returns what is known now, and whether that is complete: false
// until each kind has been listed once.
func (w *Watcher) Snapshot() (Snapshot, bool) {
	complete := w.Synced()
	s := Snapshot{
		Nodes: w.nodes.Values(), NodeKeys: map[string]keymgr.Signed{}, Claims: map[string]string{},
		Reports: map[string]string{}, Rotations: map[string]RotationRequest{},
	}
	slices.SortFunc(s.Nodes, func(a, b kube.Node) int { return cmp.Compare(a.Name, b.Name) })
	for _, key := range w.nodeKeys.Values() {
		s.NodeKeys[key.name] = key.signed
		s.Claims[key.name], s.Reports[key.name] = key.nodeUID, key.bundleHash
		if key.rotation != (RotationRequest{}) {
			s.Rotations[key.name] = key.rotation
		}
	}
	for _, trust := range w.trust.Values() {
		if len(trust.Bundle) > 0 {
			s.Bundle, s.Trust = trust.Bundle, trust
		}
	}
	s.Revoked = theRecord(w.records)
	s.APIServer = slices.Concat(w.servers.Values()...)
	slices.SortFunc(s.APIServer, netip.Addr.Compare)
	if w.orders != nil {
		s.Orders = sortedRevocations(w.orders.Values())
	}
	if w.pods != nil {
		s.LocalPods = w.pods.Values()
		slices.SortFunc(s.LocalPods, func(a, b kube.Pod) int {
			return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
		})
	}
	return s, complete
}

// NodeFeed returns the nodes, for watches that depend on them; it has the index
// informer.ByAddress.
func (w *Watcher) NodeFeed() *informer.Feed[kube.Node] { return w.nodes }

func (c *Client) nodeSource() informer.Source[*corev1.Node, kube.Node] {
	api := c.conn.Core.CoreV1().Nodes()
	return informer.Source[*corev1.Node, kube.Node]{
		Example:  &corev1.Node{},
		List:     informer.AsObject(api.List),
		Watch:    api.Watch,
		Convert:  kube.NodeOf,
		Indexers: cache.Indexers{informer.ByAddress: informer.ByEach(func(n kube.Node) []netip.Addr { return n.Addresses })},
	}
}

func (c *Client) nodeKeySource(reports bool) informer.Source[*v1alpha1.NodeKey, publishedKey] {
	return informer.Source[*v1alpha1.NodeKey, publishedKey]{
		Example: &v1alpha1.NodeKey{},
		List:    informer.AsObject(c.conn.NodeKeys.List),
		Watch:   c.conn.NodeKeys.Watch,
		Convert: func(o *v1alpha1.NodeKey) (publishedKey, error) {
			key := publishedKey{name: o.Name, nodeUID: o.Spec.NodeUID, signed: signedOf(o.Spec), rotation: rotationOf(o.Annotations)}
			if reports {
				key.bundleHash = o.Status.BundleHash
			}
			return key, nil
		},
	}
}

func (c *Client) trustSource() informer.Source[*corev1.ConfigMap, Trust] {
	api := c.conn.Core.CoreV1().ConfigMaps(c.conn.Namespace)
	return informer.Source[*corev1.ConfigMap, Trust]{
		Example:  &corev1.ConfigMap{},
		Selector: fields.OneTermEqualSelector("metadata.name", TrustConfigMap).String(),
		List:     informer.AsObject(api.List),
		Watch:    api.Watch,
		Convert:  func(o *corev1.ConfigMap) (Trust, error) { return trustOf(o), nil },
	}
}

// serverSource follows where the API servers are. They keep this object themselves.
func (c *Client) serverSource() informer.Source[*discoveryv1.EndpointSlice, []netip.Addr] {
	api := c.conn.Core.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	return informer.Source[*discoveryv1.EndpointSlice, []netip.Addr]{
		Example:  &discoveryv1.EndpointSlice{},
		Selector: fields.OneTermEqualSelector("metadata.name", apiService).String(),
		List:     informer.AsObject(api.List),
		Watch:    api.Watch,
		Convert: func(o *discoveryv1.EndpointSlice) (all []netip.Addr, err error) {
			if o.Name != apiService {
				return nil, nil
			}
			for _, e := range o.Endpoints {
				for _, text := range e.Addresses {
					addr, err := netip.ParseAddr(text)
					if err != nil {
						return all, fmt.Errorf("%w: endpointslice %s/%s: endpoints: %w", kube.ErrBadConfig, o.Namespace, o.Name, err)
					}
					all = append(all, addr.Unmap())
				}
			}
			return all, nil
		},
	}
}

func (c *Client) podSource(node string) informer.Source[*corev1.Pod, kube.Pod] {
	api := c.conn.Core.CoreV1().Pods(metav1.NamespaceAll)
	return informer.Source[*corev1.Pod, kube.Pod]{
		Example:  &corev1.Pod{},
		Selector: fields.OneTermEqualSelector("spec.nodeName", node).String(),
		List:     informer.AsObject(api.List),
		Watch:    api.Watch,
		Convert:  kube.PodOf,
	}
}
