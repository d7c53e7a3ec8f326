// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package deploy

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

func TestBadValuesAreRefused(t *testing.T) {
	for _, tc := range []struct{ set, want string }{
		{"lane.kind=ipsec", "/lane/kind"},
		{"lane.kind=vxlan", "lane.insecurePlaintext"},
		{"lane.port=65533", "/lane/port"},
		{"lane.prot=1", "prot"},
		{"mtu=1279", "mtu"},
		{"mtu=auto", "mtu"},
		{"ca.mode=vault", "/ca/mode"},
		{"ca.mode=secret", "secretName"},
		{"ca.mode=secret,ca.secretName=sealane-ca", "secretName"},
		{"cluster.podCIDRs={10.244.0.0}", "podCIDRs"},
		{"cluster.apiServer=http://10.0.0.1:6443", "apiServer"},
		{"ca.mode=secret,ca.secretName=sealane-ca-root", "secretName"},
		{"ca.rootLifetime=10y", "rootLifetime"},
		{"ca.intermediateLifetime=1", "intermediateLifetime"},
		{"keys.expiredGrace=7d", "expiredGrace"},
		{"keys.strictContinuity=maybe", "strictContinuity"},
		{"keys.acceptedRoots={AB12}", "acceptedRoots"},
		{"keys.certificateLifetime=7", "certificateLifetime"},
		{"keys.certificateLifetime=7d", "certificateLifetime"},
		{"logLevel=loud", "logLevel"},
		{"image.digest=sha256:1", "digest"},
		{"image.pullPolicy=Sometimes", "pullPolicy"},
		{"agent.metricsPort=0", "metricsPort"},
		{"agent.cniBinDir=bin", "cniBinDir"},
		{"agent.maxUnavailable=0", "maxUnavailable"},
		{"controller.replicas=0", "replicas"},
		{"controller.placement=worker", "placement"},
		{"metrics.allowFrom={10.0.0.1}", "allowFrom"},
		{"uplinks={a/b}", "uplinks"},
		{"nonsense=1", "nonsense"},
	} {
		t.Run(tc.set, func(t *testing.T) {
			t.Parallel()
			_, err := helm(t, "--set", tc.set)
			if err == nil {
				t.Fatal("accepted")
			}
			if !strings.Contains(err.Error(), tc.want) {
				t.Errorf("the error does not name %s: %v", tc.want, err)
			}
		})
	}
}

// TestValuesReachTheManifest wants a value that is given to be found again.
func TestValuesReachTheManifest(t *testing.T) {
	for set, want := range map[string]string{
		"lane.kind=vxlan,lane.insecurePlaintext=true": "- --insecure-plaintext",
		"lane.port=40000":                                       "- --lane-port=40000",
		"mtu=1400":                                              "- --mtu=1400",
		"cluster.podCIDRs={10.0.0.0/8,fd00::/8}":                "- --cluster-pod-cidrs=10.0.0.0/8,fd00::/8",
		"cluster.apiServer=https://10.0.0.1:6443":               "- --api-server=https://10.0.0.1:6443",
		"uplinks={eth0,eth1}":                                   "- --uplinks=eth0,eth1",
		"ca.mode=secret,ca.secretName=mine":                     "- --ca-secret=mine",
		"image.tag=v1":                                          "image: ghcr.io/sealane/sealane:v1",
		"image.digest=sha256:" + strings.Repeat("0f", 32):       "image: ghcr.io/sealane/sealane@sha256:0f0f",
		"image.pullSecrets[0].name=s":                           "- name: s",
		"agent.podAnnotations.a=b":                              "a: b",
		"metrics.podMonitor.enabled=true":                       "kind: PodMonitor",
		"metrics.prometheusRule.enabled=true":                   "kind: PrometheusRule",
		"ca.rootLifetime=1h":                                    "- --root-lifetime=1h",
		"ca.intermediateLifetime=30m":                           "- --intermediate-lifetime=30m",
		"keys.expiredGrace=0s":                                  "- --expired-grace=0s",
		"keys.strictContinuity=true":                            "- --strict-continuity",
		"keys.acceptedRoots={" + strings.Repeat("0f", 32) + "}": "- --accepted-roots=0f0f",
		"keys.certificateLifetime=1h30m":                        "- --certificate-lifetime=1h30m",
		"metrics.allowFrom={10.0.0.0/8,fd00::/8}":               "- --metrics-allow-from=10.0.0.0/8,fd00::/8",
		"controller.metricsPort=9000":                           "- --controller-port=9000",
	} {
		t.Run(set, func(t *testing.T) {
			t.Parallel()
			text, err := helm(t, "--set", set)
			if err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(text, want) {
				t.Errorf("the manifest does not contain %q", want)
			}
		})
	}
}

// schema is the part of a JSON schema that this test looks at.
type schema struct {
	Properties map[string]schema `json:"properties"`
	Ref        string            `json:"$ref"`
	Closed     *bool             `json:"additionalProperties"`
}

// TestValuesAndSchemaAgree wants every value to be in the schema, used by a
// template and explained, and nothing else to be in the schema.
func TestValuesAndSchemaAgree(t *testing.T) {
	text := readFile(t, filepath.Join(chart, "values.schema.json"))
	var s schema
	// Only the closed objects say false there; open maps hold a schema.
	text = strings.ReplaceAll(text, `"additionalProperties": {`, `"values": {`)
	if err := json.Unmarshal([]byte(text), &s); err != nil {
		t.Fatal(err)
	}
	delete(s.Properties, "global")
	var values map[string]any
	if err := yaml.UnmarshalStrict([]byte(readFile(t, filepath.Join(chart, "values.yaml"))), &values); err != nil {
		t.Fatal(err)
	}
	compare(t, "", s, values, templates(t))
}

func compare(t *testing.T, path string, s schema, values map[string]any, used string) {
	t.Helper()
	if s.Closed == nil || *s.Closed {
		t.Errorf("the schema of %q accepts what it does not know", path)
	}
	for _, key := range slices.Sorted(maps.Keys(s.Properties)) {
		if _, ok := values[key]; !ok {
			t.Errorf("values.yaml does not tell of %s%s", path, key)
		}
	}
	for _, key := range slices.Sorted(maps.Keys(values)) {
		sub, ok := s.Properties[key]
		if !ok {
			t.Errorf("the schema does not know %s%s", path, key)
			continue
		}
		if nested, ok := values[key].(map[string]any); ok && sub.Properties != nil {
			compare(t, path+key+".", sub, nested, used)
		} else if !strings.Contains(used, ".Values."+path+key) {
			t.Errorf("no template uses %s%s", path, key)
		}
	}
}

func templates(t *testing.T) string {
	t.Helper()
	var b strings.Builder
	names, err := fs.Glob(os.DirFS(chart), "templates/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range names {
		b.WriteString(readFile(t, filepath.Join(chart, name)))
	}
	return b.String()
}

func readFile(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
