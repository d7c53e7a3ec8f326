// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"strings"
	"time"

	certv1 "k8s.io/api/certificates/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
	watchtools "k8s.io/client-go/tools/watch"

	"github.com/sealane/sealane/keymgr"
)

// Bounds of what an agent asks for.
const (
	// MaxValidity is the longest life of a node certificate; the admission
	// policy refuses requests for more.
	MaxValidity = 7 * 24 * time.Hour
	// minValidity is the API server's own lower bound.
	minValidity = 10 * time.Minute
	// cleanupTimeout bounds the removal of an abandoned request.
	cleanupTimeout = 5 * time.Second
	maxObjectName  = 253
	suffixLength   = 12
)

// CertificateRequest asks for a node certificate.
type CertificateRequest struct {
	// Node names the node, in the request's name only. Who really asks is what the API
	// server says about the agent's token.
	Node keymgr.NodeID
	// CSR is the PKCS#10 request, PEM.
	CSR []byte
	// Validity is how long the certificate is wanted for; zero means
	// MaxValidity. The signer may give less.
	Validity time.Duration
}

// RequestCertificate asks the controller for a certificate and waits for it,
// as long as ctx lasts. It returns the chain in DER, the node's certificate
// first. A refusal is a *DeniedError, for which errors.Is(err, ErrDenied).
//
// An answered request object stays: it is the record of what was issued, and Kubernetes
// removes it after an hour. A request without an answer is withdrawn.
func (c *Client) RequestCertificate(ctx context.Context, req CertificateRequest) ([][]byte, error) {
	object, err := newRequestObject(req)
	if err != nil {
		return nil, err
	}
	doing := "request certificate " + object.Name
	created, err := c.conn.Core.CertificatesV1().CertificateSigningRequests().Create(ctx, object, metav1.CreateOptions{})
	if err != nil {
		if apierrors.ReasonForError(err) == metav1.StatusReasonUnknown {
			c.withdraw(ctx, object) // no answer; the request may have arrived all the same
		}
		return nil, Wrap(doing, err)
	}
	chain, err := c.awaitCertificate(c.conn.WithLog(ctx), created)
	if err == nil {
		return chain, nil
	}
	if !errors.Is(err, ErrDenied) {
		c.withdraw(ctx, created)
	}
	return nil, fmt.Errorf("%s: %w", doing, err)
}

func newRequestObject(req CertificateRequest) (*certv1.CertificateSigningRequest, error) {
	validity := req.Validity
	if validity == 0 {
		validity = MaxValidity
	}
	if validity < minValidity || validity > MaxValidity {
		return nil, fmt.Errorf("%w: validity %v: want %v to %v", ErrBadConfig, validity, minValidity, MaxValidity)
	}
	name := requestPrefix(req.Node.Name) + strings.ToLower(rand.Text()[:suffixLength])
	if len(name) > maxObjectName {
		return nil, fmt.Errorf("%w: node name %q: longer than %d characters leaves no room for the name of a certificate request",
			ErrBadConfig, req.Node.Name, maxObjectName-suffixLength-len(requestPrefix("")))
	}
	seconds := int32(validity / time.Second)
	return &certv1.CertificateSigningRequest{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: certv1.CertificateSigningRequestSpec{
			Request: req.CSR, SignerName: SignerName, ExpirationSeconds: &seconds,
			Usages: []certv1.KeyUsage{certv1.UsageDigitalSignature, certv1.UsageClientAuth, certv1.UsageServerAuth},
		},
	}, nil
}

// requestPrefix starts the names of all requests of a node; the admission
// policy demands it.
func requestPrefix(node string) string { return "sealane-" + node + "." }

func (c *Client) awaitCertificate(ctx context.Context, created *certv1.CertificateSigningRequest) ([][]byte, error) {
	api := c.conn.Core.CertificatesV1().CertificateSigningRequests()
	selected := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = fields.OneTermEqualSelector("metadata.name", created.Name).String()
		return o
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return api.List(ctx, selected(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return api.Watch(ctx, selected(o))
		},
	}, c.conn.Core)
	var chain [][]byte
	_, err := watchtools.UntilWithSync(ctx, lw, &certv1.CertificateSigningRequest{}, nil, func(e watch.Event) (bool, error) {
		object, ok := e.Object.(*certv1.CertificateSigningRequest)
		if !ok || object.Name != created.Name {
			return false, nil
		}
		if e.Type == watch.Deleted || object.UID != created.UID {
			return false, fmt.Errorf("wait for answer: request deleted: %w", ErrNotFound)
		}
		var err error
		chain, err = answerOf(object)
		return chain != nil, err
	})
	if err != nil && ctx.Err() != nil {
		return nil, fmt.Errorf("wait for answer: %w", context.Cause(ctx))
	}
	return chain, err
}

// answerOf returns the issued chain, the refusal, or nothing yet.
func answerOf(object *certv1.CertificateSigningRequest) ([][]byte, error) {
	for _, condition := range object.Status.Conditions {
		if condition.Type == certv1.CertificateDenied || condition.Type == certv1.CertificateFailed {
			return nil, &DeniedError{Request: object.Name, Reason: condition.Reason, Message: condition.Message}
		}
	}
	if len(object.Status.Certificate) == 0 {
		return nil, nil
	}
	chain, err := keymgr.DecodeChain(object.Status.Certificate)
	if err != nil {
		return nil, fmt.Errorf("read answer: %w", err)
	}
	return chain, nil
}

// withdraw removes a request whose answer will not be read, so that an agent in a crash
// loop does not fill the API server while the controller is away. The name identifies the
// request: its end is random.
func (c *Client) withdraw(ctx context.Context, request *certv1.CertificateSigningRequest) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), cleanupTimeout)
	defer cancel()
	err := c.conn.Core.CertificatesV1().CertificateSigningRequests().Delete(ctx, request.Name, metav1.DeleteOptions{})
	if err := Wrap("withdraw certificate request", err); err != nil && !errors.Is(err, ErrNotFound) {
		c.conn.Log.Warn("certificate request is left behind", keyName, request.Name, keyError, err)
	}
}
