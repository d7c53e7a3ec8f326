// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"context"
	"fmt"
	"os"

	"github.com/sealane/sealane/keymgr/ca"
)

// Secrets opens the Secrets of Sealane's namespace.
type Secrets func(name string) ca.Store

// openAuthority opens the certificate authority of the configured kind.
func openAuthority(ctx context.Context, cfg Config, trustDomain string, secrets Secrets) (*ca.Authority, error) {
	root, err := loadRoot(ctx, cfg, secrets)
	if err != nil {
		return nil, err
	}
	return ca.Open(ctx, ca.Config{
		TrustDomain: trustDomain, Store: secrets(StoreSecret), RootStore: secrets(RootSecret), Root: root,
		RootLifetime: cfg.RootLifetime, IntermediateLifetime: cfg.IntermediateLifetime,
	})
}

// loadRoot returns the root that is handed in, the zero Root if none is. Roots
// that are handed in are taken for shared: whoever else trusts them must not
// take a node for one of its own users or servers.
func loadRoot(ctx context.Context, cfg Config, secrets Secrets) (ca.Root, error) {
	switch cfg.CAMode {
	case CASecret:
		stored, err := secrets(cfg.CASecret).Load(ctx)
		if err != nil {
			return ca.Root{}, fmt.Errorf("load root: %w", err)
		}
		root := ca.Root{
			Certificates: stored.Files[SecretRootCertificate], Key: stored.Files[SecretRootKey], Shared: true,
			Intermediate: stored.Files[SecretIntermediateCertificate], IntermediateKey: stored.Files[SecretIntermediateKey],
		}
		if len(root.Certificates) == 0 {
			return ca.Root{}, fmt.Errorf("%w: --ca-secret=%s: it has no %s; make it with kubectl create secret tls",
				ErrConfig, cfg.CASecret, SecretRootCertificate)
		}
		return root, nil
	case CACluster:
		return readRoot(cfg)
	}
	return ca.Root{}, nil
}

func readRoot(cfg Config) (ca.Root, error) {
	certificates, err := os.ReadFile(cfg.CACertificateFile)
	if err != nil {
		return ca.Root{}, fmt.Errorf("%w: --ca-cert: %w; mount the file from a control-plane node", ErrConfig, err)
	}
	key, err := os.ReadFile(cfg.CAKeyFile)
	if err != nil {
		return ca.Root{}, fmt.Errorf("%w: --ca-key: %w; mount the file from a control-plane node", ErrConfig, err)
	}
	return ca.Root{Certificates: certificates, Key: key, Shared: true}, nil
}
