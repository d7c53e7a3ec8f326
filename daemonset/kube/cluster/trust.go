// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/util/retry"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/conn"
)

// What is published in TrustConfigMap beside the bundle.
const (
	// TrustRenewalKey is the key of the window in which nodes renew their
	// certificates after a change of roots; see ca.Window.
	TrustRenewalKey = "renewal.json"
	// TrustHistoryKey is the key of the signed history that leads to the bundle; see
	// bundle.Parse.
	TrustHistoryKey = "history.json"
	// TrustAuthorityKey is the key of what the authority says of itself; see
	// rootchange.Account.
	TrustAuthorityKey = "authority.json"
	// RotateRootAnnotation asks for a new root: the time of the request
	// (RFC 3339).
	RotateRootAnnotation = "sealane.io/rotate-root-requested"
)

// Trust is the content of TrustConfigMap.
type Trust struct {
	Bundle    []byte // PEM
	History   []byte // JSON of a bundle.History, empty from a controller that does not sign it
	Renewal   []byte // JSON of a ca.Window, empty if there is none
	Authority []byte // JSON of a rootchange.Account
	Request   string // value of RotateRootAnnotation
}

func trustOf(o *corev1.ConfigMap) Trust {
	return Trust{
		Bundle: bytes.TrimSpace([]byte(o.Data[TrustBundleKey])), History: []byte(o.Data[TrustHistoryKey]),
		Renewal: []byte(o.Data[TrustRenewalKey]), Authority: []byte(o.Data[TrustAuthorityKey]),
		Request: o.Annotations[RotateRootAnnotation],
	}
}

// Trust returns what is published, from the API server itself; ErrNotFound if
// nothing is.
func (c *Client) Trust(ctx context.Context) (Trust, error) {
	object, err := c.conn.Core.CoreV1().ConfigMaps(c.conn.Namespace).Get(ctx, TrustConfigMap, metav1.GetOptions{})
	if err != nil {
		return Trust{}, kube.Wrap("read configmap "+c.conn.Namespace+"/"+TrustConfigMap, err)
	}
	return trustOf(object), nil
}

// TrustBundle returns the published trust bundle (PEM), ErrNotFound if there is
// none.
func (c *Client) TrustBundle(ctx context.Context) ([]byte, error) {
	trust, err := c.Trust(ctx)
	return trust.Bundle, err
}

// PublishTrust makes the trust ConfigMap carry bundle, history, renewal window and account,
// in one write. An empty part is removed; what others keep there stays.
func (c *Client) PublishTrust(ctx context.Context, t Trust) error {
	return c.changeTrust(ctx, "publish", func(o *corev1.ConfigMap) bool {
		changed := false
		for key, value := range map[string]string{
			TrustBundleKey: string(t.Bundle), TrustHistoryKey: string(t.History), TrustRenewalKey: string(t.Renewal), TrustAuthorityKey: string(t.Authority),
		} {
			old, present := o.Data[key]
			if old == value && present == (value != "") {
				continue
			}
			changed = true
			if o.Data == nil {
				o.Data = map[string]string{}
			}
			if o.Data[key] = value; value == "" {
				delete(o.Data, key)
			}
		}
		return changed
	})
}

// RequestRootRotation asks the controller to replace the root that it made.
func (c *Client) RequestRootRotation(ctx context.Context, at time.Time) error {
	return c.changeTrust(ctx, "annotate", func(o *corev1.ConfigMap) bool {
		if o.Annotations == nil {
			o.Annotations = map[string]string{}
		}
		o.Annotations[RotateRootAnnotation] = at.UTC().Format(time.RFC3339)
		return true
	})
}

// changeTrust makes a change to the ConfigMap, and the ConfigMap if there is none.
func (c *Client) changeTrust(ctx context.Context, verb string, change func(*corev1.ConfigMap) bool) error {
	doing := fmt.Sprintf("%s configmap %s/%s", verb, c.conn.Namespace, TrustConfigMap)
	api := c.conn.Core.CoreV1().ConfigMaps(c.conn.Namespace)
	again := func(err error) bool { return apierrors.IsConflict(err) || apierrors.IsAlreadyExists(err) }
	return kube.Wrap(doing, retry.OnError(retry.DefaultBackoff, again, func() error {
		object, err := api.Get(ctx, TrustConfigMap, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			object = &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: TrustConfigMap, Labels: conn.Labels()}}
			change(object)
			_, err = api.Create(ctx, object, metav1.CreateOptions{})
			return err
		}
		if err != nil || !change(object) {
			return err
		}
		_, err = api.Update(ctx, object, metav1.UpdateOptions{})
		return err
	}))
}
