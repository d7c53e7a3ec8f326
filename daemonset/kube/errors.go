// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

// Errors to test for with errors.Is.
var (
	// ErrNotFound says that the API server has no such object.
	ErrNotFound = errors.New("not found")
	// ErrConflict says that the object changed since it was read.
	ErrConflict = errors.New("changed by somebody else")
	// ErrForbidden says that the API server refused the request: no
	// permission, or an admission policy.
	ErrForbidden = errors.New("forbidden")
	// ErrDenied says that the controller denied a certificate request; the
	// error is a *DeniedError.
	ErrDenied = errors.New("certificate request denied")
	// ErrNotApproved says that a certificate request must not be signed.
	ErrNotApproved = errors.New("certificate request not approved")
	// ErrBadConfig says that a configuration, given or found in the cluster,
	// is not usable.
	ErrBadConfig = errors.New("bad configuration")
)

// DeniedError says why a certificate request got no certificate.
type DeniedError struct {
	Request string // name of the CertificateSigningRequest
	Reason  string // one word, as in the controller's metrics
	Message string // free text
}

// Error implements error.
func (e *DeniedError) Error() string {
	return fmt.Sprintf("%v: %s: %s: %s", ErrDenied, e.Request, e.Reason, e.Message)
}

// Is makes errors.Is(err, ErrDenied) true.
func (e *DeniedError) Is(target error) bool { return target == ErrDenied }

// Wrap adds to an API error what was attempted, and the sentinel that callers test for. It
// is for the packages below this one.
func Wrap(doing string, err error) error {
	switch {
	case err == nil:
		return nil
	case apierrors.IsNotFound(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrNotFound, err)
	case apierrors.IsConflict(err), apierrors.IsAlreadyExists(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrConflict, err)
	case apierrors.IsForbidden(err), apierrors.IsUnauthorized(err):
		return fmt.Errorf("%s: %w: %w", doing, ErrForbidden, err)
	}
	return fmt.Errorf("%s: %w", doing, err)
}

// Unavailable reports whether an error of a request says nothing about what was asked for,
// because the API server did not answer or could not (status 429, or 500 and above).
func Unavailable(err error) bool {
	if err == nil || errors.Is(err, ErrBadConfig) {
		return false
	}
	var answer apierrors.APIStatus
	if !errors.As(err, &answer) {
		return true
	}
	code := answer.Status().Code
	return code == http.StatusTooManyRequests || code >= http.StatusInternalServerError
}
