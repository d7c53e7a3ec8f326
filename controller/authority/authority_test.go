// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package authority

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sealane/sealane/controller/controllertest"
	"github.com/sealane/sealane/keymgr/ca"
	"github.com/sealane/sealane/keymgr/ca/memorystore"
)

// memory returns the Secrets of a namespace in which some are filled.
func memory(t *testing.T, filled map[string]map[string][]byte) Secrets {
	t.Helper()
	stores := map[string]ca.Store{}
	return func(name string) ca.Store {
		if stores[name] == nil {
			stores[name] = memorystore.New()
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
	certificate, private := controllertest.OperatorRoot(t)
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
		{Config{Mode: ModeSelf}, false},
		{Config{Mode: ModeSecret, Secret: "mine"}, true},
		{Config{Mode: ModeCluster, CertificateFile: certFile, KeyFile: keyFile}, true},
	} {
		t.Run(string(tc.cfg.Mode), func(t *testing.T) {
			a, err := Open(t.Context(), tc.cfg, controllertest.TrustDomain, secrets)
			if err != nil {
				t.Fatal(err)
			}
			if handedIn := string(a.Bundle()) == string(certificate); handedIn != tc.shared {
				t.Errorf("bundle is\n%s", a.Bundle())
			}
			// What is in the store is enough for the next leader.
			again, err := Open(t.Context(), tc.cfg, controllertest.TrustDomain, secrets)
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
	certificate, _ := controllertest.OperatorRoot(t)
	secrets := memory(t, map[string]map[string][]byte{"public": {"tls.crt": certificate}})
	_, err := Open(t.Context(), Config{Mode: ModeSecret, Secret: "absent"}, controllertest.TrustDomain, secrets)
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "--ca-secret=absent") {
		t.Errorf("absent secret: got error %v", err)
	}
	_, err = Open(t.Context(), Config{Mode: ModeSecret, Secret: "public"}, controllertest.TrustDomain, secrets)
	if !errors.Is(err, ca.ErrRootOffline) {
		t.Errorf("root without key or intermediate: got error %v", err)
	}
	_, err = Open(t.Context(), Config{Mode: ModeCluster, CertificateFile: "/absent/ca.crt"}, controllertest.TrustDomain, secrets)
	if !errors.Is(err, ErrConfig) || !strings.Contains(err.Error(), "--ca-cert") || !errors.Is(err, os.ErrNotExist) {
		t.Errorf("absent file: got error %v", err)
	}
}
