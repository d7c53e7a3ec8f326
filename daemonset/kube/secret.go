// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/sealane/sealane/daemonset/kube/internal/conn"
	"github.com/sealane/sealane/keymgr/ca"
)

// SecretStore is a ca.Store in one Secret of the client's namespace. The
// version of its content is the Secret's resource version: of two writers the
// API server lets one through.
type SecretStore struct {
	client *Client
	name   string
}

// SecretStore returns the store in the Secret of that name. It need not exist.
func (c *Client) SecretStore(name string) *SecretStore { return &SecretStore{client: c, name: name} }

// Load implements ca.Store.
func (s *SecretStore) Load(ctx context.Context) (ca.Stored, error) {
	object, err := s.get(ctx)
	if errors.Is(err, ErrNotFound) {
		return ca.Stored{}, nil
	}
	if err != nil {
		return ca.Stored{}, err
	}
	return ca.Stored{Files: object.Data, Version: object.ResourceVersion}, nil
}

// Save implements ca.Store.
func (s *SecretStore) Save(ctx context.Context, next ca.Stored) error {
	doing := fmt.Sprintf("write secret %s/%s", s.client.conn.Namespace, s.name)
	api := s.client.conn.Core.CoreV1().Secrets(s.client.conn.Namespace)
	if next.Version == "" {
		_, err := api.Create(ctx, &corev1.Secret{
			ObjectMeta: metav1.ObjectMeta{Name: s.name, Labels: conn.Labels()},
			Type:       corev1.SecretTypeOpaque, Data: next.Files,
		}, metav1.CreateOptions{})
		return asStoreError(doing, err)
	}
	object, err := s.get(ctx)
	if errors.Is(err, ErrNotFound) || err == nil && object.ResourceVersion != next.Version {
		return fmt.Errorf("%s: %w", doing, ca.ErrConflict)
	}
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	object.Data = next.Files
	_, err = api.Update(ctx, object, metav1.UpdateOptions{})
	return asStoreError(doing, err)
}

func (s *SecretStore) get(ctx context.Context) (*corev1.Secret, error) {
	object, err := s.client.conn.Core.CoreV1().Secrets(s.client.conn.Namespace).Get(ctx, s.name, metav1.GetOptions{})
	if err != nil {
		return nil, Wrap(fmt.Sprintf("read secret %s/%s", s.client.conn.Namespace, s.name), err)
	}
	return object, nil
}

func asStoreError(doing string, err error) error {
	if err = Wrap(doing, err); errors.Is(err, ErrConflict) {
		return fmt.Errorf("%w: %w", ca.ErrConflict, err)
	}
	return err
}
