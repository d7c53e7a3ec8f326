// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/sealane/sealane/daemonset/kube"
)

// Annotations of a NodeKey by which an operator asks its node for a new key.
const (
	// RotateAnnotation holds the time of the request (RFC 3339): keys made before
	// are replaced.
	RotateAnnotation = "sealane.io/rotate-requested"
	// CompromisedAnnotation is the same for keys that may have leaked: they are dropped at
	// once, even if that interrupts traffic.
	CompromisedAnnotation = "sealane.io/key-compromised"
)

// RotationRequest is when an operator last asked a node for a new key; zero means never.
type RotationRequest struct {
	At          time.Time
	Compromised time.Time
}

// rotationOf reads a request. A value that is not a time is no request.
func rotationOf(annotations map[string]string) RotationRequest {
	read := func(name string) time.Time {
		t, err := time.Parse(time.RFC3339, annotations[name])
		if err != nil {
			return time.Time{}
		}
		return t
	}
	return RotationRequest{At: read(RotateAnnotation), Compromised: read(CompromisedAnnotation)}
}

// RequestRotation asks a node for a new WireGuard key. ErrNotFound means that the
// node has published none yet.
func (c *Client) RequestRotation(ctx context.Context, node string, r RotationRequest) error {
	return kube.Wrap("request rotation of node "+node, retry.RetryOnConflict(retry.DefaultBackoff, func() error {
		key, err := c.conn.NodeKeys.Get(ctx, node, metav1.GetOptions{})
		if err != nil {
			return err
		}
		if key.Annotations == nil {
			key.Annotations = map[string]string{}
		}
		for name, at := range map[string]time.Time{RotateAnnotation: r.At, CompromisedAnnotation: r.Compromised} {
			if !at.IsZero() {
				key.Annotations[name] = at.UTC().Format(time.RFC3339)
			}
		}
		_, err = c.conn.NodeKeys.Update(ctx, key, metav1.UpdateOptions{})
		return err
	}))
}
