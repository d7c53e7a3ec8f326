// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package v1alpha1

import (
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"sigs.k8s.io/yaml"
)

const crdFile = "../../daemonset/deploy/chart/crds/sealane.io_nodekeys.yaml"

// schema is the part of an OpenAPI schema that the tests look at.
type openAPI struct {
	Properties map[string]openAPI
	Items      *openAPI
	Required   []string
	MaxItems   int
	MaxLength  int
	Pattern    string
	Type       string
}

func (s openAPI) at(t *testing.T, path ...string) openAPI {
	t.Helper()
	for _, name := range path {
		next, ok := s.Properties[name]
		if !ok {
			t.Fatalf("schema has no property %q of path %v", name, path)
		}
		s = next
		if s.Items != nil {
			s = openAPI{Properties: s.Items.Properties, MaxItems: s.MaxItems, MaxLength: s.Items.MaxLength, Type: s.Type}
		}
	}
	return s
}

// definition is the part of a CRD that the tests look at.
type definition struct {
	Spec struct {
		Scope    string
		Versions []struct {
			Name                     string
			Subresources             map[string]any
			Schema                   struct{ OpenAPIV3Schema openAPI }
			AdditionalPrinterColumns []column
		}
	}
}

type column struct{ Name, Type, JSONPath string }

func readCRD(t *testing.T, file string) definition {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var crd definition
	if err := yaml.Unmarshal(text, &crd); err != nil {
		t.Fatal(err)
	}
	return crd
}

func readSchema(t *testing.T) openAPI {
	t.Helper()
	crd := readCRD(t, crdFile)
	if crd.Spec.Scope != "Cluster" || len(crd.Spec.Versions) != 1 || crd.Spec.Versions[0].Name != Version {
		t.Fatalf("CRD has scope %q and %d versions, want Cluster and only %s", crd.Spec.Scope, len(crd.Spec.Versions), Version)
	}
	if _, ok := crd.Spec.Versions[0].Subresources["status"]; !ok {
		t.Error("CRD has no status subresource: an agent could change spec by a status update")
	}
	return crd.Spec.Versions[0].Schema.OpenAPIV3Schema
}

func TestSchemaBoundsEveryListAndString(t *testing.T) {
	s := readSchema(t)
	if got := s.at(t, "status", "refused").MaxItems; got != MaxRefused {
		t.Errorf("status.refused has maxItems %d, want MaxRefused = %d", got, MaxRefused)
	}
	if got, want := s.at(t, "spec").Required, []string{"certificateChain", "nodeUID", "payload", "sequence", "signature"}; !cmp.Equal(got, want) {
		t.Errorf("spec requires %v, want %v", got, want)
	}
	for name, field := range s.at(t, "spec").Properties {
		if !field.bounded() {
			t.Errorf("spec.%s has no bound", name)
		}
	}
}

// TestDateColumnsLieInThePast wants no printer column of type date for a time that may lie in the future: kubectl prints
// such a column as an age, and a time in the future as <invalid>.
func TestDateColumnsLieInThePast(t *testing.T) {
	past := []string{".metadata.creationTimestamp"}
	files, err := filepath.Glob(filepath.Join(filepath.Dir(crdFile), "*.yaml"))
	if err != nil || len(files) != 3 {
		t.Fatalf("found CRDs %v, error %v", files, err)
	}
	expires := ""
	for _, file := range files {
		for _, version := range readCRD(t, file).Spec.Versions {
			for _, c := range version.AdditionalPrinterColumns {
				if c.Type == "date" && !slices.Contains(past, c.JSONPath) {
					t.Errorf("%s: column %s has type date, but %s may lie in the future; use string", file, c.Name, c.JSONPath)
				}
				if c.JSONPath == ".status.certificate.notAfter" {
					expires = c.Type
				}
			}
		}
	}
	if expires != "string" {
		t.Errorf("the column of the certificate's end has type %q, want string", expires)
	}
}

// bounded reports whether the schema limits the size.
func (s openAPI) bounded() bool {
	switch s.Type {
	case "integer":
		return true
	case "array":
		return s.MaxItems > 0 && s.Items.bounded()
	case "object":
		for _, field := range s.Properties {
			if !field.bounded() {
				return false
			}
		}
		return len(s.Properties) > 0
	}
	return s.MaxLength > 0 || s.Pattern != ""
}

func example() *NodeKey {
	when := metav1.NewTime(time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC))
	return &NodeKey{
		ObjectMeta: metav1.ObjectMeta{Name: "n1"},
		Spec: NodeKeySpec{
			Payload: []byte("payload"), Signature: []byte("signature"), CertificateChain: [][]byte{{1}, {2}},
			NodeUID: "u1", Sequence: 7,
		},
		Status: NodeKeyStatus{
			Conditions: []metav1.Condition{{Type: ConditionReady, Status: metav1.ConditionTrue, Reason: "Serving"}},
			Lane:       LaneWireGuard, Generation: 1, AcceptedPeers: 2,
			Refused:     []RefusedStatement{{Node: "n2", Reason: "sequence", Count: 3, LastTime: when}},
			Certificate: &CertificateStatus{Serial: "0a", NotBefore: when, NotAfter: when},
		},
	}
}

func TestDeepCopySharesNothing(t *testing.T) {
	original := example()
	dup := original.DeepCopyObject().(*NodeKey)
	dup.Spec.Payload[0] = 'X'
	dup.Spec.CertificateChain[0][0] = 9
	dup.Status.Conditions[0].Reason = "Changed"
	dup.Status.Refused[0].Count = 9
	dup.Status.Certificate.Serial = "ff"
	if diff := cmp.Diff(example(), original); diff != "" {
		t.Errorf("changing a copy changed the original (-want +got):\n%s", diff)
	}
}

func TestBytesTravelAsBase64(t *testing.T) {
	text, err := json.Marshal(example())
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Spec struct {
			Payload          string
			CertificateChain []string
		}
	}
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if got.Spec.Payload != "cGF5bG9hZA==" || !cmp.Equal(got.Spec.CertificateChain, []string{"AQ==", "Ag=="}) {
		t.Errorf("payload %q and chain %q are not base64 of what was set", got.Spec.Payload, got.Spec.CertificateChain)
	}
}

func TestAddToScheme(t *testing.T) {
	s := runtime.NewScheme()
	if err := AddToScheme(s); err != nil {
		t.Fatal(err)
	}
	for _, kind := range []string{"NodeKey", "NodeKeyList"} {
		if !s.Recognizes(GroupVersion().WithKind(kind)) {
			t.Errorf("scheme does not know %s after AddToScheme", kind)
		}
	}
}
