// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package conntest makes a connection to client-go's fake API server, for tests.
package conntest

import (
	"context"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube/internal/conn"
)

// patience is how long a test waits for what must happen; it is long because
// it is only used up by a failure.
const patience = 20 * time.Second

// Server is client-go's fake API server.
type Server struct {
	Core *fake.Clientset
	Keys *clienttesting.Fake // for reactors on Sealane's own resources
	Conn conn.Conn
	// watches gets the resource of each watch that is established. The fake
	// server does not replay what happens between a list and its watch, so
	// tests must not change anything there.
	watches chan string
}

// New makes a server that has the objects.
func New(t testing.TB, objects ...runtime.Object) *Server {
	t.Helper()
	watches := make(chan string, 100)
	core := fake.NewClientset(objects...)
	core.PrependWatchReactor("*", watchReactor(core.Tracker(), watches))
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		t.Fatal(err)
	}
	tracker := clienttesting.NewObjectTracker(scheme, serializer.NewCodecFactory(scheme).UniversalDecoder())
	keys := &clienttesting.Fake{}
	keys.AddReactor("*", "*", clienttesting.ObjectReaction(tracker))
	keys.AddWatchReactor("*", watchReactor(tracker, watches))
	return &Server{Core: core, Keys: keys, Conn: conn.Conn{Core: core, Resources: resources(keys)}, watches: watches}
}

func resources(keys *clienttesting.Fake) conn.Resources {
	group := v1alpha1.GroupVersion()
	addresses := gentype.NewFakeClientWithList(
		keys, "", group.WithResource(v1alpha1.PodAddressesResource), group.WithKind("PodAddresses"),
		func() *v1alpha1.PodAddresses { return &v1alpha1.PodAddresses{} },
		func() *v1alpha1.PodAddressesList { return &v1alpha1.PodAddressesList{} },
		func(to, from *v1alpha1.PodAddressesList) { to.ListMeta = from.ListMeta },
		func(l *v1alpha1.PodAddressesList) []*v1alpha1.PodAddresses { return gentype.ToPointerSlice(l.Items) },
		func(l *v1alpha1.PodAddressesList, items []*v1alpha1.PodAddresses) {
			l.Items = gentype.FromPointerSlice(items)
		},
	)
	return conn.Resources{
		NodeKeys: gentype.NewFakeClientWithList(
			keys, "", group.WithResource(v1alpha1.NodeKeyResource), group.WithKind("NodeKey"),
			func() *v1alpha1.NodeKey { return &v1alpha1.NodeKey{} },
			func() *v1alpha1.NodeKeyList { return &v1alpha1.NodeKeyList{} },
			func(to, from *v1alpha1.NodeKeyList) { to.ListMeta = from.ListMeta },
			func(l *v1alpha1.NodeKeyList) []*v1alpha1.NodeKey { return gentype.ToPointerSlice(l.Items) },
			func(l *v1alpha1.NodeKeyList, items []*v1alpha1.NodeKey) { l.Items = gentype.FromPointerSlice(items) },
		),
		Revocations: gentype.NewFakeClientWithList(
			keys, "", group.WithResource(v1alpha1.RevocationResource), group.WithKind("Revocation"),
			func() *v1alpha1.Revocation { return &v1alpha1.Revocation{} },
			func() *v1alpha1.RevocationList { return &v1alpha1.RevocationList{} },
			func(to, from *v1alpha1.RevocationList) { to.ListMeta = from.ListMeta },
			func(l *v1alpha1.RevocationList) []*v1alpha1.Revocation { return gentype.ToPointerSlice(l.Items) },
			func(l *v1alpha1.RevocationList, items []*v1alpha1.Revocation) {
				l.Items = gentype.FromPointerSlice(items)
			},
		),
		PodAddresses: addresses,
		MergeAddresses: func(ctx context.Context, name string, patch []byte) error {
			_, err := addresses.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	}
}

func watchReactor(tracker clienttesting.ObjectTracker, watches chan<- string) clienttesting.WatchReactionFunc {
	return func(a clienttesting.Action) (bool, watch.Interface, error) {
		w, err := tracker.Watch(a.GetResource(), a.GetNamespace())
		watches <- a.GetResource().Resource
		return true, w, err
	}
}

// AwaitWatches returns when n more watches are established.
func (s *Server) AwaitWatches(ctx context.Context, t testing.TB, n int) {
	t.Helper()
	for range n {
		select {
		case <-s.watches:
		case <-ctx.Done():
			t.Fatal("a watch was never established")
		}
	}
}

// Context returns a context that ends with the test, or when it takes far too long.
func Context(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	t.Cleanup(cancel)
	return ctx
}
