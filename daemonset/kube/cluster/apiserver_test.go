// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"cmp"
	"context"
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	certv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/api/v1alpha1"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/kubetest"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/identity"
)

// allowAll lets agents do to nodekeys and certificate requests what they want,
// as far as roles are concerned, so that what is refused is refused by the
// admission policy.
const allowAll = `
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRole
metadata: {name: test-all}
rules:
- {apiGroups: [sealane.io], resources: ["*"], verbs: ["*"]}
- {apiGroups: [certificates.k8s.io], resources: ["*"], verbs: ["*"]}
- {apiGroups: [""], resources: [configmaps, events], verbs: ["*"]}
---
apiVersion: rbac.authorization.k8s.io/v1
kind: ClusterRoleBinding
metadata: {name: test-all}
roleRef: {apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: test-all}
subjects: [{kind: ServiceAccount, namespace: sealane-system, name: sealane-agent}]
`

// realCluster is a cluster with nodes n1 and n2 and an agent's client for each token.
type realCluster struct {
	*kubetest.Server
	admin  *Client
	n1, n2 keymgr.NodeID
}

func (r *realCluster) client(t *testing.T, kubeconfig string) *Client {
	t.Helper()
	c, err := kube.NewClient(kube.Config{Kubeconfig: kubeconfig, UserAgent: "sealane-agent"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Close)
	return New(c)
}

func startReal(t *testing.T) *realCluster {
	t.Helper()
	r := &realCluster{Server: kubetest.Start(t)}
	r.Install(t, kubetest.Values{"ca": map[string]any{"mode": "self"}})
	r.n1 = keymgr.NodeID{Name: "n1", UID: r.AddNode(t, "n1", "10.244.1.0/24", "fd00:1::/64")}
	r.n2 = keymgr.NodeID{Name: "n2", UID: r.AddNode(t, "n2", "10.244.2.0/24", "fd00:2::/64")}
	r.admin = r.client(t, r.AdminKubeconfig)
	return r
}

// csrPEM makes a PKCS#10 request, which the API server checks the signature of.
func csrPEM(t *testing.T, id keymgr.NodeID) []byte {
	t.Helper()
	own, err := identity.Open(identity.Config{Dir: t.TempDir(), Node: id, TrustDomain: "test"})
	if err != nil {
		t.Fatal(err)
	}
	csr, err := own.CSR()
	if err != nil {
		t.Fatal(err)
	}
	return csr
}

// requestObject returns the certificate request that an agent makes for a node.
func requestObject(t *testing.T, id keymgr.NodeID) (made *certv1.CertificateSigningRequest) {
	t.Helper()
	api := newFake(t)
	refused := apierrors.NewBadRequest("only the object is wanted")
	api.core.PrependReactor("create", "certificatesigningrequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		made = a.(clienttesting.CreateAction).GetObject().(*certv1.CertificateSigningRequest)
		return true, nil, refused
	})
	_, err := api.RequestCertificate(t.Context(), kube.CertificateRequest{Node: id, CSR: csrPEM(t, id)})
	if made == nil {
		t.Fatalf("no request was made: %v", err)
	}
	return made
}

// newcomer is a pod that its node has just given addresses.
func newcomer(name, uid string, addresses ...string) kube.AddressedPod {
	p := kube.AddressedPod{Namespace: "shop", Name: name, UID: uid}
	for _, a := range addresses {
		p.Addresses = append(p.Addresses, netip.MustParseAddr(a))
	}
	return p
}

// TestRealAPIServer runs against a real API server, because the fake one knows
// no admission policies, no roles, no bound tokens and no field selectors.
func TestRealAPIServer(t *testing.T) {
	r := startReal(t)
	agent1, agent2 := r.client(t, r.Agent(t, "n1")), r.client(t, r.Agent(t, "n2"))

	t.Run("token says who asks", func(t *testing.T) { testToken(t, r, agent1) })
	t.Run("least privilege", func(t *testing.T) { testLeastPrivilege(t, r, agent1) })
	t.Run("watch", func(t *testing.T) { testRealWatch(t, r, agent1) })
	t.Run("rights on revocations", func(t *testing.T) { testRevocationRights(t, r, agent1) })
	r.Apply(t, allowAll)
	awaitPolicy(t, r)
	t.Run("rights on revocations, by policy", func(t *testing.T) { testRevocationRights(t, r, agent1) })
	t.Run("revocations", func(t *testing.T) { testRealRevocation(t, r) })
	t.Run("nodekey policy", func(t *testing.T) { testNodeKeyPolicy(t, r, agent1, agent2) })
	t.Run("unbound tokens", func(t *testing.T) { testUnboundTokens(t, r) })
	t.Run("request policy", func(t *testing.T) { testRequestPolicy(t, r, agent1) })
	t.Run("forged requester", func(t *testing.T) { testForgedRequester(t, r, agent1) })
	t.Run("answer", func(t *testing.T) { testRealAnswer(t, r, agent1) })
	t.Run("withdrawal", func(t *testing.T) { testWithdrawalPolicy(t, r, agent1, agent2) })
	t.Run("schema", func(t *testing.T) { testSchema(t, r) })
	t.Run("secret store", func(t *testing.T) { testRealSecretStore(t, r) })
	t.Run("event policy", func(t *testing.T) { testEventPolicy(t, r, agent1, agent2) })
	t.Run("rights on the authority", func(t *testing.T) { testAuthorityRights(t, r) })
	t.Run("namespace deletion", func(t *testing.T) { testNamespaceDeletion(t, r) }) // the last one
}

// awaitPolicy returns when the API server has taken up roles and policy, which
// it does at its own pace.
func awaitPolicy(t *testing.T, r *realCluster) {
	t.Helper()
	ctx := testContext(t)
	unbound := r.client(t, r.Kubeconfig(t, r.Token(t, "sealane-agent", "")))
	key, err := newNodeKey(r.n1, statement(1, ""))
	if err != nil {
		t.Fatal(err)
	}
	key.Name = "probe"
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		_, err := unbound.conn.NodeKeys.Create(ctx, key, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err != nil && strings.Contains(err.Error(), "ValidatingAdmissionPolicy") {
			return
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("the policy was never enforced: last answer %v", err)
		}
	}
}

func testToken(t *testing.T, r *realCluster, agent *Client) {
	review, err := agent.conn.Core.AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authv1.SelfSubjectReview{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	extra := review.Status.UserInfo.Extra
	if got := extra["authentication.kubernetes.io/node-uid"]; len(got) != 1 || got[0] != r.n1.UID {
		t.Errorf("token says node uid %v, want %s", got, r.n1.UID)
	}
}

// testLeastPrivilege runs all that an agent does with the roles of the chart
// alone, and tries what it must not do.
func testLeastPrivilege(t *testing.T, r *realCluster, agent *Client) {
	ctx := testContext(t)
	if _, err := agent.TrustDomain(ctx); err != nil {
		t.Error(err)
	}
	if got, err := agent.ClusterNetworks(ctx); err != nil || got.PodCIDRs != nil {
		t.Errorf("without kubeadm: got %v, error %v", got, err)
	}
	if _, err := agent.Node(ctx, "n2"); err != nil {
		t.Error(err)
	}
	if err := agent.PublishNodeKey(ctx, r.n1, statement(1, "")); err != nil {
		t.Error(err)
	}
	if err := agent.PublishStatus(ctx, "n1", v1alpha1.NodeKeyStatus{AcceptedPeers: 1}); err != nil {
		t.Error(err)
	}
	if err := agent.PublishNodeKey(ctx, r.n1, statement(2, "")); err != nil {
		t.Error(err)
	}
	for range 2 { // made, and changed
		if err := agent.PublishAddresses(ctx, "n1", []kube.AddressedPod{newcomer("web", "u-1", "10.244.1.5", "fd00:1::5")}); err != nil {
			t.Error(err)
		}
	}
	_, errSecret := agent.SecretStore("sealane-ca").Load(ctx)
	_, errConfig := agent.conn.Core.CoreV1().ConfigMaps("kube-system").List(ctx, metav1.ListOptions{})
	errBundle := agent.PublishTrust(ctx, Trust{Bundle: []byte("mine")})
	errDelete := agent.conn.NodeKeys.Delete(ctx, "n1", metav1.DeleteOptions{})
	for what, err := range map[string]error{
		"read the CA": errSecret, "list configmaps": errConfig, "publish a bundle": errBundle, "delete its nodekey": errDelete,
	} {
		if !errors.Is(kube.Wrap("", err), kube.ErrForbidden) {
			t.Errorf("%s: got error %v, want ErrForbidden", what, err)
		}
	}
}

func testRealWatch(t *testing.T, r *realCluster, agent *Client) {
	ctx, cancel := context.WithCancel(testContext(t))
	w, err := agent.Watch(ctx, WatchConfig{Node: "n1"})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); w.Wait() }()
	got := await(ctx, t, w, func(s Snapshot) bool { return len(s.NodeKeys) == 1 })
	if len(got.Nodes) != 2 || len(got.Nodes[0].PodCIDRs) != 2 {
		t.Errorf("nodes: %+v", got.Nodes)
	}
	if len(got.LocalPods) != 1 || got.LocalPods[0].Name != "agent-n1" {
		t.Errorf("got pods %+v, want only those of n1", got.LocalPods)
	}
	if err := r.admin.PublishTrust(ctx, Trust{Bundle: []byte("bundle")}); err != nil {
		t.Fatal(err)
	}
	await(ctx, t, w, func(s Snapshot) bool { return string(s.Bundle) == "bundle" })
	r.AddNode(t, "n3")
	await(ctx, t, w, func(s Snapshot) bool { return len(s.Nodes) == 3 })
	r.Kubectl(t, "", "delete", "node", "n3")
	await(ctx, t, w, func(s Snapshot) bool { return len(s.Nodes) == 2 })
}

func testNodeKeyPolicy(t *testing.T, r *realCluster, agent1, agent2 *Client) {
	ctx := testContext(t)
	if err := agent2.PublishNodeKey(ctx, r.n2, statement(1, "")); err != nil {
		t.Fatalf("own create: %v", err)
	}
	if err := agent2.PublishNodeKey(ctx, r.n2, statement(2, "")); err != nil {
		t.Fatalf("own update: %v", err)
	}
	if err := agent2.PublishStatus(ctx, "n2", v1alpha1.NodeKeyStatus{AcceptedPeers: 1}); err != nil {
		t.Fatalf("own status: %v", err)
	}
	if err := agent2.PublishAddresses(ctx, "n2", []kube.AddressedPod{newcomer("web", "u-1", "10.244.2.5")}); err != nil {
		t.Fatalf("own addresses: %v", err)
	}
	wrongUID := keymgr.NodeID{Name: "n1", UID: r.n2.UID}
	absent := keymgr.NodeID{Name: "n3", UID: "x"}
	policyWords := map[string]string{"false uid": "spec.nodeUID must be " + r.n1.UID}
	for name, err := range map[string]error{
		"update":    agent1.PublishNodeKey(ctx, r.n2, statement(3, "")),
		"status":    agent1.PublishStatus(ctx, "n2", v1alpha1.NodeKeyStatus{AcceptedPeers: 7}),
		"create":    agent1.PublishNodeKey(ctx, absent, statement(1, "")),
		"delete":    agent1.DeleteNodeKey(ctx, "n2", r.n2.UID),
		"false uid": agent1.PublishNodeKey(ctx, wrongUID, statement(9, "")),
		"patch":     patchNodeKey(ctx, agent1, "n2"),
		"addresses": agent1.PublishAddresses(ctx, "n2", []kube.AddressedPod{newcomer("mine", "u-1", "10.244.2.5")}),
		"others":    agent1.PublishAddresses(ctx, "n3", []kube.AddressedPod{newcomer("mine", "u-1", "10.244.2.5")}),
	} {
		if !errors.Is(err, kube.ErrForbidden) || !strings.Contains(err.Error(), cmp.Or(policyWords[name], "agent of node n1 may write its own nodekey and podaddresses only")) {
			t.Errorf("%s of another node's nodekey: got error %v, want the policy's", name, err)
		}
	}
	if err := deleteAllNodeKeys(ctx, agent1); !errors.Is(err, kube.ErrForbidden) {
		t.Errorf("delete all nodekeys: got error %v, want ErrForbidden", err)
	}
	keys, err := r.admin.NodeKeys(ctx)
	if err != nil {
		t.Fatal(err)
	}
	found := false
	for _, key := range keys {
		found = found || key.Name == "n2" && key.Spec.Sequence == 2 && key.Status.AcceptedPeers == 1
	}
	if !found {
		t.Errorf("the nodekey of n2 did not survive: %+v", keys)
	}
	if err := agent2.DeleteNodeKey(ctx, "n2", r.n2.UID); err != nil {
		t.Errorf("own delete: %v", err)
	}
	if left, err := r.admin.conn.PodAddresses.List(ctx, metav1.ListOptions{}); err != nil || len(left.Items) != 1 || left.Items[0].Name != "n1" {
		t.Errorf("addresses that are left: %+v, %v; want those of n1", left, err)
	}
}

// allClient is what gentype's client can do beyond nodeKeyClient.
type allClient interface {
	Patch(context.Context, string, types.PatchType, []byte, metav1.PatchOptions, ...string) (*v1alpha1.NodeKey, error)
	DeleteCollection(context.Context, metav1.DeleteOptions, metav1.ListOptions) error
}

func patchNodeKey(ctx context.Context, c *Client, name string) error {
	patch := []byte(`{"metadata":{"labels":{"a":"b"}}}`)
	_, err := c.conn.NodeKeys.(allClient).Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
	return kube.Wrap("patch", err)
}

func deleteAllNodeKeys(ctx context.Context, c *Client) error {
	return kube.Wrap("delete all", c.conn.NodeKeys.(allClient).DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
}

func testUnboundTokens(t *testing.T, r *realCluster) {
	ctx := testContext(t)
	for _, bound := range []string{"", "Node/n1"} {
		c := r.client(t, r.Kubeconfig(t, r.Token(t, "sealane-agent", bound)))
		_, errRequest := c.RequestCertificate(ctx, kube.CertificateRequest{Node: r.n1, CSR: csrPEM(t, r.n1)})
		errKey := c.PublishNodeKey(ctx, r.n1, statement(50, ""))
		for what, err := range map[string]error{"certificate request": errRequest, "nodekey": errKey} {
			if !errors.Is(err, kube.ErrForbidden) || !strings.Contains(err.Error(), "not bound to a pod") {
				t.Errorf("token bound to %q, %s: got error %v, want the policy's", bound, what, err)
			}
		}
	}
}

func testRequestPolicy(t *testing.T, r *realCluster, agent *Client) {
	for name, tc := range map[string]struct {
		change func(*certv1.CertificateSigningRequest)
		policy string // what the policy says; empty if it lets it pass
	}{
		"as the agent makes it": {func(*certv1.CertificateSigningRequest) {}, ""},
		"generated name": {func(o *certv1.CertificateSigningRequest) {
			o.Name, o.GenerateName = "", "sealane-n1."
		}, ""},
		"foreign signer": {func(o *certv1.CertificateSigningRequest) {
			o.Spec.SignerName = "kubernetes.io/kube-apiserver-client"
			o.Spec.Usages = []certv1.KeyUsage{certv1.UsageClientAuth}
		}, "signer sealane.io/node only"},
		"name of another node": {func(o *certv1.CertificateSigningRequest) { o.Name = "sealane-n2.x" }, "sealane-n1."},
		"any name":             {func(o *certv1.CertificateSigningRequest) { o.Name = "x" }, "sealane-n1."},
		"too long":             {func(o *certv1.CertificateSigningRequest) { o.Spec.ExpirationSeconds = new(int32(604801)) }, "604800"},
		"as long as may be":    {func(o *certv1.CertificateSigningRequest) { padded(o, 4096) }, ""},
		"large":                {func(o *certv1.CertificateSigningRequest) { padded(o, 4099) }, "4096 bytes"},
		"no end":               {func(o *certv1.CertificateSigningRequest) { o.Spec.ExpirationSeconds = nil }, "604800"},
	} {
		t.Run(name, func(t *testing.T) {
			o := requestObject(t, r.n1)
			tc.change(o)
			_, err := agent.conn.Core.CertificatesV1().CertificateSigningRequests().Create(t.Context(), o, metav1.CreateOptions{})
			switch {
			case tc.policy == "" && err != nil:
				t.Errorf("refused: %v", err)
			case tc.policy != "" && (err == nil || !strings.Contains(err.Error(), tc.policy)):
				t.Errorf("got error %v, want one with %q", err, tc.policy)
			}
		})
	}
}

// testForgedRequester claims, in the body, to be somebody else.
func testForgedRequester(t *testing.T, r *realCluster, agent *Client) {
	ctx := testContext(t)
	o := requestObject(t, r.n1)
	o.Spec.Username, o.Spec.Groups = "system:admin", []string{"system:masters"}
	o.Spec.Extra = map[string]certv1.ExtraValue{
		"authentication.kubernetes.io/node-name": {"n2"}, "authentication.kubernetes.io/node-uid": {r.n2.UID},
	}
	api := agent.conn.Core.CertificatesV1().CertificateSigningRequests()
	made, err := api.Create(ctx, o, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got := made.Spec
	if got.Username != "system:serviceaccount:sealane-system:sealane-agent" ||
		got.Extra["authentication.kubernetes.io/node-name"][0] != "n1" ||
		got.Extra["authentication.kubernetes.io/node-uid"][0] != r.n1.UID {
		t.Errorf("forged fields were kept: %+v", got)
	}
	made.Spec.SignerName = "kubernetes.io/kubelet-serving"
	if _, err := api.Update(ctx, made, metav1.UpdateOptions{}); err == nil {
		t.Error("an agent changed a certificate request")
	}
	if err := agent.ApproveRequest(ctx, kube.Request{Name: made.Name, UID: string(made.UID), CSR: got.Request}, kube.Verdict{Reason: "Mine"}); !errors.Is(err, kube.ErrForbidden) {
		t.Errorf("an agent approved its own request: error %v", err)
	}
}

func testRealAnswer(t *testing.T, r *realCluster, agent *Client) {
	ctx := testContext(t)
	w, err := r.admin.WatchRequests(ctx)
	if err != nil {
		t.Fatal(err)
	}
	id := r.n1
	result := make(chan error, 1)
	go func() {
		_, err := agent.RequestCertificate(ctx, kube.CertificateRequest{Node: id, CSR: csrPEM(t, id)})
		result <- err
	}()
	// Every request that earlier tests left is refused, the youngest is the one
	// that waits.
	for {
		all, complete := w.Requests()
		if complete && len(all) > 0 {
			last := all[len(all)-1]
			if err := r.admin.AnswerRequest(ctx, last, [][]byte{{1}}); !errors.Is(err, kube.ErrNotApproved) {
				t.Errorf("answer to a request that nobody approved: got error %v", err)
			}
			for _, request := range all {
				if !request.Denied {
					if err := r.admin.DenyRequest(ctx, request, kube.Verdict{Reason: "Test", Message: "because"}); err != nil {
						t.Error(err)
					}
				}
			}
		}
		select {
		case <-ctx.Done():
			t.Fatal("the refusal never came back")
		case <-w.Changed():
			continue
		case err := <-result:
			denied, ok := errors.AsType[*kube.DeniedError](err)
			if !ok || denied.Reason != "Test" || denied.Message != "because" {
				t.Errorf("got error %v, want the refusal", err)
			}
		}
		return
	}
}

func testWithdrawalPolicy(t *testing.T, r *realCluster, agent1, agent2 *Client) {
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	api := agent1.conn.Core.CertificatesV1().CertificateSigningRequests()
	made, err := api.Create(ctx, requestObject(t, r.n1), metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	err = agent2.conn.Core.CertificatesV1().CertificateSigningRequests().Delete(ctx, made.Name, metav1.DeleteOptions{})
	if !errors.Is(kube.Wrap("", err), kube.ErrForbidden) {
		t.Errorf("another agent withdrew the request: error %v", err)
	}
	if err := api.Delete(ctx, made.Name, metav1.DeleteOptions{}); err != nil {
		t.Errorf("own request: %v", err)
	}

	// An abandoned wait withdraws by itself.
	w, err := r.admin.WatchRequests(ctx)
	if err != nil {
		t.Fatal(err)
	}
	waiting, abandon := context.WithCancel(ctx)
	defer abandon()
	result := make(chan error, 1)
	go func() {
		_, err := agent1.RequestCertificate(waiting, kube.CertificateRequest{Node: r.n1, CSR: csrPEM(t, r.n1)})
		result <- err
	}()
	pending := func() (n int) {
		all, _ := w.Requests()
		for _, request := range all {
			if request.Pending() {
				n++
			}
		}
		return n
	}
	until := func(ok func() bool) {
		t.Helper()
		for !ok() {
			select {
			case <-w.Changed():
			case <-ctx.Done():
				all, _ := w.Requests()
				t.Fatalf("the requests never came right: %+v", all)
			}
		}
	}
	until(func() bool { return pending() > 0 })
	abandon()
	if err := <-result; !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	until(func() bool { return pending() == 0 })
	cancel()
	w.Wait()
}

func testSchema(t *testing.T, r *realCluster) {
	valid := func() *v1alpha1.NodeKey {
		key, err := newNodeKey(keymgr.NodeID{Name: "n9", UID: "u9"}, statement(1, ""))
		if err != nil {
			t.Fatal(err)
		}
		return key
	}
	for name, change := range map[string]func(*v1alpha1.NodeKey){
		"no payload":      func(k *v1alpha1.NodeKey) { k.Spec.Payload = nil },
		"large payload":   func(k *v1alpha1.NodeKey) { k.Spec.Payload = make([]byte, 40000) },
		"no signature":    func(k *v1alpha1.NodeKey) { k.Spec.Signature = nil },
		"large signature": func(k *v1alpha1.NodeKey) { k.Spec.Signature = make([]byte, 1000) },
		"no chain":        func(k *v1alpha1.NodeKey) { k.Spec.CertificateChain = nil },
		"long chain":      func(k *v1alpha1.NodeKey) { k.Spec.CertificateChain = make([][]byte, 9) },
		"uid":             func(k *v1alpha1.NodeKey) { k.Spec.NodeUID = "no uid" },
		"sequence":        func(k *v1alpha1.NodeKey) { k.Spec.Sequence = 0 },
	} {
		key := valid()
		change(key)
		_, err := r.admin.conn.NodeKeys.Create(t.Context(), key, metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
		if err == nil || !strings.Contains(err.Error(), "spec.") {
			t.Errorf("%s: got error %v, want one that names the field", name, err)
		}
	}
	if _, err := r.admin.conn.NodeKeys.Create(t.Context(), valid(), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}}); err != nil {
		t.Errorf("valid: %v", err)
	}
}

func testRealSecretStore(t *testing.T, r *realCluster) {
	ctx := testContext(t)
	controller := r.client(t, r.Kubeconfig(t, r.Token(t, "sealane-controller", "")))
	store := controller.SecretStore("sealane-ca")
	if _, err := store.Load(ctx); err != nil {
		t.Fatal(err)
	}
	if err := store.Save(ctx, ca.Stored{Files: map[string][]byte{"a": {1}}}); err != nil {
		t.Fatal(err)
	}
	first, err := store.Load(ctx)
	if err != nil {
		t.Fatal(err)
	}
	second := first
	second.Files = map[string][]byte{"a": {2}}
	if err := store.Save(ctx, second); err != nil {
		t.Fatal(err)
	}
	if err := store.Save(ctx, first); !errors.Is(err, ca.ErrConflict) {
		t.Errorf("stale writer: got error %v, want ErrConflict", err)
	}
}
