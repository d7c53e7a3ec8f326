// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sealane/sealane/daemonset/kube/internal/informer"
	"github.com/sealane/sealane/keymgr"
)

// maxRequest bounds a PKCS#10 request in PEM, in bytes: ours takes a tenth of that. Larger ones
// are no agent's, and are ignored, so that nobody fills this process's memory with them.
const maxRequest = 4 << 10

// Request is a certificate request (CertificateSigningRequest) for our signer. The caller
// wrote CSR, Usages and Validity; all else the API server wrote about the caller, whom it
// has authenticated.
type Request struct {
	Name, UID string
	Created   time.Time
	Signer    string
	Username  string
	Extra     map[string][]string // of the caller's token
	CSR       []byte              // PEM
	Usages    []string
	Validity  time.Duration // zero if the caller does not ask for one
	Approved  bool
	Denied    bool
	Failed    bool
	// Certificate is what was issued, PEM; empty before.
	Certificate []byte
}

// Pending reports whether the request still waits for an answer.
func (r Request) Pending() bool { return !r.Denied && !r.Failed && len(r.Certificate) == 0 }

// RequestWatcher follows the certificate requests for our signer. See
// Client.WatchRequests.
type RequestWatcher struct {
	*informer.Notifier
	requests *informer.Feed[Request]
}

// WatchRequests follows the certificate requests for SignerName until ctx ends.
func (c *Client) WatchRequests(ctx context.Context) (*RequestWatcher, error) {
	w := &RequestWatcher{Notifier: informer.NewNotifier(c.conn)}
	api := c.conn.Core.CertificatesV1().CertificateSigningRequests()
	var err error
	w.requests, err = informer.Start(c.conn.WithLog(ctx), w.Notifier, informer.Source[*certv1.CertificateSigningRequest, Request]{
		Example:  &certv1.CertificateSigningRequest{},
		Selector: fields.OneTermEqualSelector("spec.signerName", SignerName).String(),
		List:     informer.AsObject(api.List),
		Watch:    api.Watch,
		Convert: func(o *certv1.CertificateSigningRequest) (Request, error) {
			if len(o.Spec.Request) > maxRequest {
				return Request{}, nil // of no signer: Requests leaves it out
			}
			return requestOf(o), nil
		},
	})
	return w, err
}

// Requests returns all requests, oldest first, and whether the list is complete.
func (w *RequestWatcher) Requests() ([]Request, bool) {
	complete := w.Synced()
	out := slices.DeleteFunc(w.requests.Values(), func(r Request) bool { return r.Signer != SignerName })
	slices.SortFunc(out, func(a, b Request) int {
		return cmp.Or(a.Created.Compare(b.Created), cmp.Compare(a.Name, b.Name))
	})
	return out, complete
}

func requestOf(o *certv1.CertificateSigningRequest) Request {
	r := Request{
		Name: o.Name, UID: string(o.UID), Created: o.CreationTimestamp.Time,
		Signer: o.Spec.SignerName, Username: o.Spec.Username, CSR: o.Spec.Request,
		Extra:       make(map[string][]string, len(o.Spec.Extra)),
		Approved:    hasCondition(o, certv1.CertificateApproved),
		Denied:      hasCondition(o, certv1.CertificateDenied),
		Failed:      hasCondition(o, certv1.CertificateFailed),
		Certificate: o.Status.Certificate,
	}
	for key, values := range o.Spec.Extra {
		r.Extra[key] = values
	}
	for _, usage := range o.Spec.Usages {
		r.Usages = append(r.Usages, string(usage))
	}
	if seconds := o.Spec.ExpirationSeconds; seconds != nil {
		r.Validity = time.Duration(*seconds) * time.Second
	}
	return r
}

func hasCondition(o *certv1.CertificateSigningRequest, kind certv1.RequestConditionType) bool {
	return slices.ContainsFunc(o.Status.Conditions, func(c certv1.CertificateSigningRequestCondition) bool {
		return c.Type == kind
	})
}

// Verdict is the reason for a decision on a request.
type Verdict struct {
	Reason  string // one word
	Message string // free text
}

// ApproveRequest records that the request may be signed.
func (c *Client) ApproveRequest(ctx context.Context, r Request, v Verdict) error {
	return c.decide(ctx, r, certv1.CertificateApproved, v)
}

// DenyRequest records that the request must not be signed. It fails on one
// that is approved: see FailRequest.
func (c *Client) DenyRequest(ctx context.Context, r Request, v Verdict) error {
	return c.decide(ctx, r, certv1.CertificateDenied, v)
}

func (c *Client) decide(ctx context.Context, r Request, kind certv1.RequestConditionType, v Verdict) error {
	doing := fmt.Sprintf("record %s for certificate request %s", kind, r.Name)
	object, err := c.liveRequest(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if hasCondition(object, kind) {
		return nil
	}
	object.Status.Conditions = append(object.Status.Conditions, newCondition(kind, v))
	_, err = c.conn.Core.CertificatesV1().CertificateSigningRequests().UpdateApproval(ctx, r.Name, object, metav1.UpdateOptions{})
	return Wrap(doing, err)
}

// FailRequest records that the signer refuses a request although it is approved.
func (c *Client) FailRequest(ctx context.Context, r Request, v Verdict) error {
	doing := "record failure for certificate request " + r.Name
	object, err := c.liveRequest(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if hasCondition(object, certv1.CertificateFailed) {
		return nil
	}
	object.Status.Conditions = append(object.Status.Conditions, newCondition(certv1.CertificateFailed, v))
	_, err = c.conn.Core.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, object, metav1.UpdateOptions{})
	return Wrap(doing, err)
}

// AnswerRequest gives the request its certificate. It reads the live object first, since
// the API server lets a signer answer a request without approval. It returns
// ErrNotApproved unless the request is approved, neither denied nor failed, and still
// without an answer.
func (c *Client) AnswerRequest(ctx context.Context, r Request, chain [][]byte) error {
	doing := "answer certificate request " + r.Name
	object, err := c.liveRequest(ctx, r)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	if live := requestOf(object); !live.Approved || !live.Pending() {
		return fmt.Errorf("%s: %w: approved %t, denied %t, failed %t, answered %t", doing, ErrNotApproved,
			live.Approved, live.Denied, live.Failed, len(live.Certificate) > 0)
	}
	object.Status.Certificate = keymgr.EncodeChain(chain)
	_, err = c.conn.Core.CertificatesV1().CertificateSigningRequests().UpdateStatus(ctx, object, metav1.UpdateOptions{})
	return Wrap(doing, err)
}

// liveRequest reads the object behind r from the API server itself.
func (c *Client) liveRequest(ctx context.Context, r Request) (*certv1.CertificateSigningRequest, error) {
	object, err := c.conn.Core.CertificatesV1().CertificateSigningRequests().Get(ctx, r.Name, metav1.GetOptions{})
	if err != nil {
		return nil, Wrap("read request", err)
	}
	if string(object.UID) != r.UID || !bytes.Equal(object.Spec.Request, r.CSR) {
		return nil, fmt.Errorf("read request: %w: it is another request of the same name", ErrConflict)
	}
	return object, nil
}

func newCondition(kind certv1.RequestConditionType, v Verdict) certv1.CertificateSigningRequestCondition {
	return certv1.CertificateSigningRequestCondition{
		Type: kind, Status: corev1.ConditionTrue, Reason: v.Reason, Message: v.Message, LastUpdateTime: metav1.Now(),
	}
}
