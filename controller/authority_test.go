// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/sealane/sealane/keymgr/ca"
)

// operatorRoot returns a root as an operator brings it: certificate and key.
func operatorRoot(t *testing.T) (certificate, private []byte) {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "operator"},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(1000 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

// memory returns the Secrets of a namespace in which some are filled.
func memory(t *testing.T, filled map[string]map[string][]byte) Secrets {
	t.Helper()
	stores := map[string]ca.Store{}
	return func(name string) ca.Store {
		if stores[name] == nil {
			stores[name] = ca.NewMemoryStore()
			if files := filled[name]; files != nil {
				if err := stores[name].Save(t.Context(), ca.Stored{Files: files}); err != nil {
					t.Fatal(err)
				}
			}
		}
		return stores[name]
	}
}

func TestOpenAuthorityModes(t *testing.T) {
	certificate, private := operatorRoot(t)
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "ca.crt"), filepath.Join(dir, "ca.key")
	for path, data := range map[string][]byte{certFile: certificate, keyFile: private} {
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	secrets := memory(t, map[string]map[string][]byte{"mine": {"tls.crt": certificate, "tls.key": private}})
	for _, tc := range []struct {
		cfg    Config
		shared bool
	}{
		{Config{CAMode: CASelf}, false},
		{Config{CAMode: CASecret, CASecret: "mine"}, true},
		{Config{CAMode: CACluster, CACertificateFile: certFile, CAKeyFile: keyFile}, true},
	} {
		t.Run(string(tc.cfg.CAMode), func(t *testing.T) {
			a, err := openAuthority(t.Context(), tc.cfg, testDomain, secrets)
			if err != nil {
				t.Fatal(err)
			}
			if handedIn := string(a.Bundle()) == string(certificate); handedIn != tc.shared {
				t.Errorf("bundle is\n%s", a.Bundle())
			}
			// What is in the store is enough for the next leader.
			again, err := openAuthority(t.Context(), tc.cfg, testDomain, secrets)
			if err != nil {
				t.Fatal(err)
			}
			first, errFirst := a.Status()
			second, errSecond := again.Status()
			if errFirst != nil || errSecond != nil || first.Intermediate.Serial != second.Intermediate.Serial {
				t.Errorf("the next leader made another intermediate: %v, %v", errFirst, errSecond)
			}
		})
	}
	stored, err := secrets(StoreSecret).Load(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for name, data := range stored.Files {
		if string(data) == string(private) {
			t.Errorf("the operator's key was copied into %s", name)
		}
	}
}

func TestOpenAuthoritySaysWhatIsMissing(t *testing.T) {
	certificate, _ := operatorRoot(t)
	secrets := memory(t, map[string]map[string][]byte{"public": {"tls.crt": certificate}})
	_, err := openAuthority(t.Context(), Config{CAMode: CASecret, CASecret: "absent"}, testDomain, secrets)
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "--ca-secret=absent") {
		t.Errorf("absent secret: got error %v", err)
	}
	_, err = openAuthority(t.Context(), Config{CAMode: CASecret, CASecret: "public"}, testDomain, secrets)
	if !errors.Is(err, ca.ErrRootOffline) {
		t.Errorf("root without key or intermediate: got error %v", err)
	}
	_, err = openAuthority(t.Context(), Config{CAMode: CACluster, CACertificateFile: "/absent/ca.crt"}, testDomain, secrets)
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "--ca-cert") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: got error %v", err)
	}
}
