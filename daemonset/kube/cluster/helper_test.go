// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/conntest"
)

// fakeAPI is a Client on client-go's fake API server.
type fakeAPI struct {
	*Client
	core   *fake.Clientset
	keys   *clienttesting.Fake // for reactors on nodekeys and revocations
	server *conntest.Server
}

func newFake(t *testing.T, objects ...runtime.Object) *fakeAPI {
	t.Helper()
	server := conntest.New(t, objects...)
	c := kube.New(server.Conn, kube.Config{})
	t.Cleanup(c.Close)
	return &fakeAPI{Client: New(c), core: server.Core, keys: server.Keys, server: server}
}

// awaitWatches returns when n more watches are established.
func (f *fakeAPI) awaitWatches(ctx context.Context, t *testing.T, n int) {
	t.Helper()
	f.server.AwaitWatches(ctx, t, n)
}

func testContext(t *testing.T) context.Context {
	t.Helper()
	return conntest.Context(t)
}

func makeNode(name, uid string, cidrs ...string) *corev1.Node {
	return &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: types.UID(uid)},
		Spec:       corev1.NodeSpec{PodCIDRs: cidrs},
	}
}
