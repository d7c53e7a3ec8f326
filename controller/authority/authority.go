// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package authority

import (
	"context"
	"fmt"
	"os"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
)

// Mode says where the root certificate of all node certificates comes from.
type Mode string

// The modes.
const (
	// ModeSelf is a root that the controller makes itself and keeps in a Secret.
	ModeSelf Mode = "self"
	// ModeSecret is a root that the operator has put into a Secret.
	ModeSecret Mode = "secret"
	// ModeCluster is the Kubernetes cluster's own CA, read from files of a
	// control-plane node.
	ModeCluster Mode = "cluster"
)

// Names of the Secrets in Sealane's namespace that the controller writes.
const (
	// StoreSecret holds the intermediate that the controller made, with its key.
	StoreSecret = "sealane-ca"
	// RootSecret holds the root that the controller made in [ModeSelf]. It is a
	// Secret of its own so that an operator can take the root's key away.
	RootSecret = kube.RootSecret
)

// Keys of the Secret that the operator provides in [ModeSecret].
const (
	// SecretRootCertificate holds the root, as in a Secret of type
	// kubernetes.io/tls. Further certificates in it are trusted as well.
	SecretRootCertificate = "tls.crt"
	// SecretRootKey holds the root's private key. Without it, the two keys below
	// are required.
	SecretRootKey = "tls.key"
	// SecretIntermediateCertificate and SecretIntermediateKey hold the issuing
	// intermediate of a root whose key stays elsewhere.
	SecretIntermediateCertificate = "intermediate.crt"
	SecretIntermediateKey         = "intermediate.key"
)

// Config selects the CA.
type Config struct {
	Mode Mode
	// Secret names the Secret with the root. Only ModeSecret uses it.
	Secret string
	// CertificateFile and KeyFile are paths of PEM files. Only ModeCluster uses them.
	CertificateFile string
	KeyFile         string
	// RootLifetime and IntermediateLifetime apply to certificates that the
	// controller makes itself; zero means the defaults of package ca.
	RootLifetime         time.Duration
	IntermediateLifetime time.Duration
}

// Secrets opens the Secrets of Sealane's namespace by name.
type Secrets func(name string) ca.Store

// Open opens the certificate authority that cfg selects.
func Open(ctx context.Context, cfg Config, trustDomain string, secrets Secrets) (*ca.Authority, error) {
	root, err := loadRoot(ctx, cfg, secrets)
	if err != nil {
		return nil, err
	}
	return ca.Open(ctx, ca.Config{
		TrustDomain: trustDomain, Store: secrets(StoreSecret), RootStore: secrets(RootSecret), Root: root,
		RootLifetime: cfg.RootLifetime, IntermediateLifetime: cfg.IntermediateLifetime,
	})
}

// CheckFiles reads the files of [ModeCluster], so that a missing one is found
// when the controller starts and not when it is elected. It does nothing in the
// other modes.
func (c Config) CheckFiles() error {
	if c.Mode != ModeCluster {
		return nil
	}
	_, err := readRoot(c)
	return err
}

// loadRoot returns the root that the operator provides, or the zero Root in
// [ModeSelf]. A provided root counts as shared: other relying parties may trust
// it, and must not take a node for one of their own users or servers.
func loadRoot(ctx context.Context, cfg Config, secrets Secrets) (ca.Root, error) {
	switch cfg.Mode {
	case ModeSecret:
		stored, err := secrets(cfg.Secret).Load(ctx)
		if err != nil {
			return ca.Root{}, fmt.Errorf("load root: %w", err)
		}
		root := ca.Root{
			Certificates: stored.Files[SecretRootCertificate], Key: stored.Files[SecretRootKey], Shared: true,
			Intermediate: stored.Files[SecretIntermediateCertificate], IntermediateKey: stored.Files[SecretIntermediateKey],
		}
		if len(root.Certificates) == 0 {
			return ca.Root{}, fmt.Errorf("%w: --ca-secret=%s: it has no %s; make it with kubectl create secret tls",
				ErrConfig, cfg.Secret, SecretRootCertificate)
		}
		return root, nil
	case ModeCluster:
		return readRoot(cfg)
	}
	return ca.Root{}, nil
}

func readRoot(cfg Config) (ca.Root, error) {
	certificates, err := os.ReadFile(cfg.CertificateFile)
	if err != nil {
		return ca.Root{}, fmt.Errorf("%w: --ca-cert: %w; mount the file from a control-plane node", ErrConfig, err)
	}
	key, err := os.ReadFile(cfg.KeyFile)
	if err != nil {
		return ca.Root{}, fmt.Errorf("%w: --ca-key: %w; mount the file from a control-plane node", ErrConfig, err)
	}
	return ca.Root{Certificates: certificates, Key: key, Shared: true}, nil
}
