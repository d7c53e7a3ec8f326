// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package objects

import (
	"context"
	"slices"
	"testing"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/kube/kubetest"
)

const realObjects = `
apiVersion: v1
kind: Namespace
metadata: {name: shop, labels: {team: a}}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: web, labels: {app: web}}
spec: {nodeName: n2, automountServiceAccountToken: false, containers: [{name: c, image: i, ports: [{name: http, containerPort: 8080}]}]}
---
apiVersion: v1
kind: Pod
metadata: {namespace: shop, name: job}
spec: {nodeName: n2, automountServiceAccountToken: false, restartPolicy: Never, containers: [{name: c, image: i}]}
---
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {namespace: shop, name: deny}
spec: {podSelector: {}, policyTypes: [Ingress]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: web}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: v1
kind: Service
metadata: {namespace: shop, name: foreign, labels: {service.kubernetes.io/service-proxy-name: other}}
spec: {selector: {app: web}, ports: [{port: 80}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {namespace: shop, name: web-1, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: "", port: 8080}]
endpoints: [{addresses: [10.244.2.5], nodeName: n2}]
`

// TestRealObjects follows objects with the rights of the chart alone: what the
// fake server does not know is rights, and selectors by field.
func TestRealObjects(t *testing.T) {
	r := kubetest.Start(t)
	r.Install(t, kubetest.Values{"ca": map[string]any{"mode": "self"}})
	r.AddNode(t, "n1", "10.244.1.0/24", "fd00:1::/64")
	r.AddNode(t, "n2", "10.244.2.0/24", "fd00:2::/64")
	client, err := kube.NewClient(kube.Config{Kubeconfig: r.Agent(t, "n1"), UserAgent: "sealane-agent"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	agent := Reader{Client: client}
	r.Kubectl(t, "", "create", "namespace", "shop")
	r.Kubectl(t, "", "-n", "shop", "create", "serviceaccount", "default")
	r.Apply(t, realObjects)
	ctx, cancel := context.WithCancel(testContext(t))
	w, err := cluster.New(client).Watch(ctx, cluster.WatchConfig{})
	if err != nil {
		t.Fatal(err)
	}
	o, err := Watch(ctx, client, Config{Node: "n1", Nodes: w})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); o.Wait(); w.Wait() }()
	for !o.Synced() {
		awaitChange(ctx, t, o)
	}
	refs, _ := o.Take()
	for _, want := range []kube.Ref{
		podRef("web"), podRef("job"),
		{Kind: kube.KindNamespace, Name: "shop"},
		{Kind: kube.KindPolicy, Namespace: "shop", Name: "deny"},
		{Kind: kube.KindService, Namespace: "shop", Name: "web"},
	} {
		if !slices.Contains(refs, want) {
			t.Errorf("%v is not named; named are %v", want, refs)
		}
	}
	if slices.Contains(refs, kube.Ref{Kind: kube.KindService, Namespace: "shop", Name: "foreign"}) {
		t.Error("a service of another proxy is named")
	}
	if _, found, ok := o.Service("shop", "web"); !ok || len(found) != 1 {
		t.Errorf("service: found %t with slices %v", ok, found)
	}
	if _, err := agent.PodObject(ctx, "shop", "web"); err != nil {
		t.Error(err)
	}
	for pod, status := range map[string]string{
		"web": `{"status":{"phase":"Running","podIP":"10.244.2.5","podIPs":[{"ip":"10.244.2.5"}]}}`,
		"job": `{"status":{"phase":"Succeeded"}}`,
	} {
		r.Kubectl(t, "", "-n", "shop", "patch", "pod", pod, "--subresource=status", "--type=merge", "-p", status)
	}
	awaitDirty(ctx, t, o, podRef("web"), podRef("job"))
	if pod, ok := o.Pod("shop", "web"); !ok || !slices.Equal(pod.Addresses, addrs("10.244.2.5")) || len(pod.Ports) != 1 {
		t.Errorf("pod: got %+v, %t", pod, ok)
	}
	if _, ok := o.Pod("shop", "job"); ok {
		t.Error("a finished pod is still there")
	}
}
