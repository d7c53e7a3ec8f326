// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/keymgr"
)

var comparePlain = cmp.Options{
	cmp.Comparer(func(a, b netip.Prefix) bool { return a == b }),
	cmp.Comparer(func(a, b netip.Addr) bool { return a == b }),
}

func TestTrustDomain(t *testing.T) {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "kube-system", UID: "domain"}}
	if got, err := newFake(t, ns).TrustDomain(testContext(t)); got != "domain" || err != nil {
		t.Errorf("got %q, error %v", got, err)
	}
	if _, err := newFake(t).TrustDomain(testContext(t)); !errors.Is(err, ErrNotFound) {
		t.Errorf("without the namespace: got error %v, want ErrNotFound", err)
	}
}

func TestClusterNetworks(t *testing.T) {
	for _, tc := range []struct {
		name, config string
		want         []string
		err          string
	}{
		{"dual stack", "networking:\n  podSubnet: 10.244.0.0/16, fd00:244::/56\n", []string{"10.244.0.0/16", "fd00:244::/56"}, ""},
		{"Services", "networking: {podSubnet: 10.244.0.0/16, serviceSubnet: '10.96.0.0/12,fd00:96::/112'}", []string{"10.244.0.0/16", "10.96.0.0/12", "fd00:96::/112"}, ""},
		{"no prefix of Services", "networking: {serviceSubnet: 10.96.0.0}", nil, "networking.serviceSubnet"},
		{"host bits", "networking: {podSubnet: 10.244.1.1/16}", []string{"10.244.0.0/16"}, ""},
		{"none", "networking: {dnsDomain: cluster.local}", nil, ""},
		{"empty", "", nil, ""},
		{"no prefix", "networking: {podSubnet: 10.244.0.0}", nil, "networking.podSubnet"},
		{"trailing comma", "networking: {podSubnet: '10.244.0.0/16,'}", nil, "networking.podSubnet"},
		{"not yaml", "networking: [", nil, "ClusterConfiguration.networking"},
		{"wrong type", "networking: {podSubnet: [a]}", nil, "podSubnet"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			api := newFake(t, &corev1.ConfigMap{
				ObjectMeta: metav1.ObjectMeta{Namespace: "kube-system", Name: "kubeadm-config"},
				Data:       map[string]string{"ClusterConfiguration": tc.config},
			})
			networks, err := api.ClusterNetworks(testContext(t))
			got := slices.Concat(networks.PodCIDRs, networks.ServiceCIDRs)
			if tc.err != "" {
				if !errors.Is(err, ErrBadConfig) || !strings.Contains(err.Error(), tc.err) {
					t.Fatalf("got error %v, want ErrBadConfig about %q", err, tc.err)
				}
				return
			}
			var want []netip.Prefix
			for _, text := range tc.want {
				want = append(want, netip.MustParsePrefix(text))
			}
			if diff := cmp.Diff(want, got, comparePlain); err != nil || diff != "" {
				t.Errorf("error %v, ranges (-want +got):\n%s", err, diff)
			}
		})
	}
	if got, err := newFake(t).ClusterNetworks(testContext(t)); got.PodCIDRs != nil || got.ServiceCIDRs != nil || err != nil {
		t.Errorf("without kubeadm: got %v, error %v, want nothing", got, err)
	}
}

func FuzzParseKubeadmNetworking(f *testing.F) {
	f.Add("networking:\n  podSubnet: 10.244.0.0/16,fd00::/48\n")
	f.Add("networking: {podSubnet: x}")
	f.Add("networking: {serviceSubnet: 10.96.0.0/12}")
	f.Add("- a")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseKubeadmNetworking(text)
		for _, prefix := range slices.Concat(got.PodCIDRs, got.ServiceCIDRs) {
			if err != nil || !prefix.IsValid() || prefix != prefix.Masked() {
				t.Errorf("%q gave %v and error %v", text, got, err)
			}
		}
	})
}

func TestParseAPIServer(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "",
		"https://192.0.2.1:6443":    "https://192.0.2.1:6443",
		"192.0.2.1:6443":            "https://192.0.2.1:6443",
		"[2001:db8::1]:6443":        "https://[2001:db8::1]:6443",
		"https://[2001:db8::1]":     "https://[2001:db8::1]:443",
		"api.example.com":           "https://api.example.com:443",
		"https://api.example.com/k": "https://api.example.com:443/k",
		"http://192.0.2.1:6443":     "!",
		"https://":                  "!",
		"https://u:p@192.0.2.1":     "!",
		"https://192.0.2.1:port":    "!",
		"2001:db8::1":               "!",
	} {
		got, err := parseAPIServer(in)
		if want == "!" {
			if !errors.Is(err, ErrBadConfig) || !strings.Contains(err.Error(), in) {
				t.Errorf("%q: got %q, error %v, want ErrBadConfig that names it", in, got, err)
			}
			continue
		}
		if got != want || err != nil {
			t.Errorf("%q: got %q, error %v, want %q", in, got, err, want)
		}
	}
}

func FuzzParseAPIServer(f *testing.F) {
	f.Add("192.0.2.1:6443")
	f.Add("https://[2001:db8::1]:6443/x")
	f.Fuzz(func(t *testing.T, text string) {
		got, err := parseAPIServer(text)
		if err != nil || got == "" {
			return
		}
		if !strings.HasPrefix(got, "https://") {
			t.Errorf("%q became %q: a token would travel in the clear", text, got)
		}
		if again, err := parseAPIServer(got); err != nil || again != got {
			t.Errorf("%q became %q, which becomes %q, error %v", text, got, again, err)
		}
	})
}

func TestNewClientWithoutCredentials(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	if _, err := NewClient(Config{}); !errors.Is(err, ErrBadConfig) {
		t.Errorf("got error %v, want ErrBadConfig", err)
	}
	if _, err := NewClient(Config{Kubeconfig: "testdata/absent"}); err == nil || !strings.Contains(err.Error(), "testdata/absent") {
		t.Errorf("got error %v, want one that names the file", err)
	}
	c, err := NewClient(Config{APIServer: "192.0.2.1:6443"})
	if err == nil {
		c.Close()
		t.Error("a client was made without the pod's ca certificate")
	}
}

func TestLiveLookups(t *testing.T) {
	ctx := testContext(t)
	agent := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: "agent", UID: "pu", DeletionTimestamp: new(metav1.Now())},
		Spec:       corev1.PodSpec{NodeName: "n1", ServiceAccountName: AgentServiceAccount, HostNetwork: true},
	}
	set := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: DefaultNamespace, Name: "agents", UID: "du"}}
	api := newFake(t, makeNode("n1", "u1", "10.244.1.0/24"), agent, set)

	if node, err := api.Node(ctx, "n1"); err != nil || node.UID != "u1" || len(node.PodCIDRs) != 1 {
		t.Errorf("node: got %+v, error %v", node, err)
	}
	want := Pod{
		Namespace: DefaultNamespace, Name: "agent", UID: "pu", Node: "n1",
		ServiceAccount: AgentServiceAccount, HostNetwork: true, Deleting: true,
	}
	if node, err := api.Node(ctx, "n1"); err != nil || node.ID() != (keymgr.NodeID{Name: "n1", UID: "u1"}) || node.Live().ID != node.ID() ||
		!slices.Equal(node.Live().PodCIDRs, node.PodCIDRs) || !slices.Equal(node.Live().Addresses, node.Addresses) {
		t.Errorf("node for keymgr: got %+v, error %v", node.Live(), err)
	}
	if pod, err := api.Pod(ctx, DefaultNamespace, "agent"); err != nil || !cmp.Equal(want, pod, comparePlain) {
		t.Errorf("pod: got %+v, error %v", pod, err)
	}
	if uid, err := api.DaemonSetUID(ctx, "agents"); err != nil || uid != "du" {
		t.Errorf("daemonset: got %q, error %v", uid, err)
	}
	if pods, err := api.AgentPods(ctx); err != nil || len(pods) != 1 {
		t.Errorf("agents: got %v, error %v", pods, err)
	}
	_, errNode := api.Node(ctx, "n2")
	_, errPod := api.Pod(ctx, "default", "agent")
	_, errSet := api.DaemonSetUID(ctx, "others")
	for _, err := range []error{errNode, errPod, errSet} {
		if !errors.Is(err, ErrNotFound) {
			t.Errorf("absent object: got error %v, want ErrNotFound", err)
		}
	}
}

// TestUnavailable: an answer that says no is one all the same.
func TestUnavailable(t *testing.T) {
	node := schema.GroupResource{Resource: "nodes"}
	for name, tc := range map[string]struct {
		err  error
		want bool
	}{
		"no connection":    {&net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
		"no answer":        {context.DeadlineExceeded, true},
		"too busy":         {apierrors.NewTooManyRequests("later", 1), true},
		"etcd is away":     {apierrors.NewInternalError(errors.New("etcd")), true},
		"timeout in there": {apierrors.NewServerTimeout(node, "get", 1), true},
		"no such node":     {apierrors.NewNotFound(node, "a"), false},
		"no right":         {apierrors.NewForbidden(node, "a", nil), false},
		"no login":         {apierrors.NewUnauthorized("token"), false},
		"bad request":      {apierrors.NewBadRequest("what"), false},
	} {
		api := newFake(t)
		api.core.PrependReactor("get", "nodes", func(clienttesting.Action) (bool, runtime.Object, error) { return true, nil, tc.err })
		_, err := api.Node(testContext(t), "a")
		if err == nil || Unavailable(err) != tc.want {
			t.Errorf("%s: error %v; unavailable: want %t", name, err, tc.want)
		}
	}
}
