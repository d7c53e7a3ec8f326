// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"

	"github.com/sealane/sealane/keymgr"
)

var errStopped = errors.New("stopped for the test")

type requested struct {
	chain [][]byte
	err   error
}

// request asks for a certificate in the background and returns once it waits
// for the answer.
func request(ctx context.Context, t *testing.T, api *fakeAPI) (certv1.CertificateSigningRequest, <-chan requested) {
	t.Helper()
	result := make(chan requested, 1)
	go func() {
		chain, err := api.RequestCertificate(ctx, CertificateRequest{
			Node: keymgr.NodeID{Name: "n1", UID: "u1"}, CSR: []byte("csr"), Validity: time.Hour,
		})
		result <- requested{chain, err}
	}()
	api.awaitWatches(ctx, t, 1)
	list, err := api.core.CertificatesV1().CertificateSigningRequests().List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 1 {
		t.Fatalf("got %d requests, error %v", len(list.Items), err)
	}
	return list.Items[0], result
}

func (f *fakeAPI) requests(t *testing.T) []certv1.CertificateSigningRequest {
	t.Helper()
	list, err := f.core.CertificatesV1().CertificateSigningRequests().List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return list.Items
}

func TestRequestCertificate(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	object, result := request(ctx, t, api)
	if !strings.HasPrefix(object.Name, "sealane-n1.") {
		t.Errorf("name %q, want prefix sealane-n1.", object.Name)
	}
	want := certv1.CertificateSigningRequestSpec{
		Request: []byte("csr"), SignerName: "sealane.io/node", ExpirationSeconds: new(int32(3600)),
		Usages: []certv1.KeyUsage{"digital signature", "client auth", "server auth"},
	}
	if diff := cmp.Diff(want, object.Spec); diff != "" {
		t.Errorf("spec (-want +got):\n%s", diff)
	}
	r := requestOf(&object)
	if err := api.ApproveRequest(ctx, r, Verdict{Reason: "Checked"}); err != nil {
		t.Fatal(err)
	}
	if err := api.AnswerRequest(ctx, r, [][]byte{[]byte("leaf"), []byte("intermediate")}); err != nil {
		t.Fatal(err)
	}
	got := <-result
	if diff := cmp.Diff([][]byte{[]byte("leaf"), []byte("intermediate")}, got.chain); got.err != nil || diff != "" {
		t.Errorf("error %v, chain (-want +got):\n%s", got.err, diff)
	}
	if len(api.requests(t)) != 1 {
		t.Error("an answered request was removed: the record of what was issued is lost")
	}
}

func TestRequestCertificateDenied(t *testing.T) {
	for name, refuse := range map[string]func(*Client, context.Context, Request, Verdict) error{
		"denied": (*Client).DenyRequest, "failed": (*Client).FailRequest,
	} {
		t.Run(name, func(t *testing.T) {
			ctx, api := testContext(t), newFake(t)
			object, result := request(ctx, t, api)
			if err := refuse(api.Client, ctx, requestOf(&object), Verdict{Reason: "Name", Message: "node is n2"}); err != nil {
				t.Fatal(err)
			}
			got := <-result
			denied, ok := errors.AsType[*DeniedError](got.err)
			if !ok || !errors.Is(got.err, ErrDenied) || denied.Reason != "Name" || denied.Message != "node is n2" || denied.Request != object.Name {
				t.Errorf("got error %v, want the refusal with its reason and message", got.err)
			}
		})
	}
}

func TestRequestCertificateCanceledWithdraws(t *testing.T) {
	api := newFake(t)
	ctx, cancel := context.WithCancelCause(testContext(t))
	_, result := request(ctx, t, api)
	cancel(errStopped)
	if got := <-result; !errors.Is(got.err, errStopped) {
		t.Errorf("got error %v, want the cause of the cancellation", got.err)
	}
	if left := api.requests(t); len(left) != 0 {
		t.Errorf("%d abandoned requests are left", len(left))
	}
}

func TestRequestCertificateDeletedMeanwhile(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	object, result := request(ctx, t, api)
	if err := api.core.CertificatesV1().CertificateSigningRequests().Delete(ctx, object.Name, metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	if got := <-result; !errors.Is(got.err, ErrNotFound) {
		t.Errorf("got error %v, want ErrNotFound", got.err)
	}
}

func TestRequestCertificateForbidden(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	api.core.PrependReactor("create", "certificatesigningrequests", func(clienttesting.Action) (bool, runtime.Object, error) {
		return true, nil, apierrors.NewForbidden(certv1.Resource("certificatesigningrequests"), "", errors.New("policy"))
	})
	_, err := api.RequestCertificate(ctx, CertificateRequest{Node: keymgr.NodeID{Name: "n1", UID: "u1"}})
	if !errors.Is(err, ErrForbidden) || !strings.Contains(err.Error(), "policy") {
		t.Errorf("got error %v, want ErrForbidden with the policy's words", err)
	}
}

func TestRequestCertificateRefusesBadInput(t *testing.T) {
	for name, req := range map[string]CertificateRequest{
		"validity": {Node: keymgr.NodeID{Name: "n1"}, Validity: MaxValidity + time.Second},
		"short":    {Node: keymgr.NodeID{Name: "n1"}, Validity: time.Minute},
		"name":     {Node: keymgr.NodeID{Name: strings.Repeat("n", 240)}},
	} {
		ctx, api := testContext(t), newFake(t)
		if _, err := api.RequestCertificate(ctx, req); !errors.Is(err, ErrBadConfig) {
			t.Errorf("%s: got error %v, want ErrBadConfig", name, err)
		}
		if len(api.requests(t)) != 0 {
			t.Errorf("%s: a request was made", name)
		}
	}
}

func TestRequestCertificateCanceledWhileItIsMade(t *testing.T) {
	api := newFake(t)
	ctx, cancel := context.WithCancel(testContext(t))
	api.core.PrependReactor("create", "certificatesigningrequests", func(a clienttesting.Action) (bool, runtime.Object, error) {
		if err := api.core.Tracker().Add(a.(clienttesting.CreateAction).GetObject()); err != nil {
			t.Error(err)
		}
		cancel()
		return true, nil, context.Canceled
	})
	_, err := api.RequestCertificate(ctx, CertificateRequest{Node: keymgr.NodeID{Name: "n1", UID: "u1"}})
	if !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v", err)
	}
	if left := api.requests(t); len(left) != 0 {
		t.Error("a request is left whose making was not confirmed")
	}
}
