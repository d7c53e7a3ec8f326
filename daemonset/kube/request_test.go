// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	certv1 "k8s.io/api/certificates/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func makeRequest(name string, conditions ...certv1.RequestConditionType) *certv1.CertificateSigningRequest {
	o := &certv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name, UID: "r1"},
		Spec: certv1.CertificateSigningRequestSpec{
			SignerName: SignerName, Username: "user", Request: []byte("csr"), ExpirationSeconds: new(int32(3600)),
			Extra: map[string]certv1.ExtraValue{"k": {"v"}}, Usages: []certv1.KeyUsage{certv1.UsageClientAuth},
		},
	}
	for _, kind := range conditions {
		o.Status.Conditions = append(o.Status.Conditions, newCondition(kind, Verdict{Reason: "Test"}))
	}
	return o
}

func TestAnswerRequestOnlyIfApproved(t *testing.T) {
	answered := makeRequest("r", certv1.CertificateApproved)
	answered.Status.Certificate = []byte("first")
	for _, tc := range []struct {
		name   string
		object *certv1.CertificateSigningRequest
		want   error
	}{
		{"approved", makeRequest("r", certv1.CertificateApproved), nil},
		{"not approved", makeRequest("r"), ErrNotApproved},
		{"denied", makeRequest("r", certv1.CertificateDenied), ErrNotApproved},
		{"failed", makeRequest("r", certv1.CertificateApproved, certv1.CertificateFailed), ErrNotApproved},
		{"answered", answered, ErrNotApproved},
	} {
		t.Run(tc.name, func(t *testing.T) {
			ctx, api := testContext(t), newFake(t, tc.object)
			before := string(tc.object.Status.Certificate)
			if err := api.AnswerRequest(ctx, requestOf(tc.object), [][]byte{[]byte("x")}); !errors.Is(err, tc.want) {
				t.Errorf("got error %v, want %v", err, tc.want)
			}
			got := string(api.requests(t)[0].Status.Certificate)
			if wrote := got != before; wrote != (tc.want == nil) {
				t.Errorf("certificate is %q, was %q", got, before)
			}
		})
	}
}

func TestVerdictsAreForTheRequestThatWasJudged(t *testing.T) {
	judged := requestOf(makeRequest("r", certv1.CertificateApproved))
	other := makeRequest("r", certv1.CertificateApproved)
	other.UID = "r2"
	changed := makeRequest("r", certv1.CertificateApproved)
	changed.Spec.Request = []byte("another csr")
	for name, object := range map[string]*certv1.CertificateSigningRequest{"recreated": other, "changed": changed} {
		ctx, api := testContext(t), newFake(t, object)
		for verb, err := range map[string]error{
			"approve": api.ApproveRequest(ctx, judged, Verdict{}), "deny": api.DenyRequest(ctx, judged, Verdict{}),
			"fail": api.FailRequest(ctx, judged, Verdict{}), "answer": api.AnswerRequest(ctx, judged, nil),
		} {
			if !errors.Is(err, ErrConflict) {
				t.Errorf("%s request: %s got error %v, want ErrConflict", name, verb, err)
			}
		}
	}
}

func TestRequestsAreSortedAndOurs(t *testing.T) {
	first, second, foreign, large := makeRequest("b"), makeRequest("a"), makeRequest("c"), makeRequest("d")
	large.Spec.Request = make([]byte, maxRequest+1)
	first.CreationTimestamp = metav1.NewTime(time.Unix(100, 0))
	second.CreationTimestamp = metav1.NewTime(time.Unix(200, 0))
	foreign.Spec.SignerName = "kubernetes.io/kubelet-serving"
	api := newFake(t, second, first, foreign, large)
	ctx, cancel := context.WithCancel(testContext(t))
	w, err := api.WatchRequests(ctx)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); w.Wait() }()
	var got []Request
	for complete := false; !complete; got, complete = w.Requests() {
		select {
		case <-w.Changed():
		case <-ctx.Done():
			t.Fatal("the list was never complete")
		}
	}
	want := []Request{requestOf(first), requestOf(second)}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if !got[0].Pending() || got[0].Extra["k"][0] != "v" || got[0].Validity != time.Hour {
		t.Errorf("got %+v", got[0])
	}
}
