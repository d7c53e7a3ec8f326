// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cni_test

import (
	"encoding/json"
	"errors"
	"net"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni"
)

const (
	minimal = `{"cniVersion":"1.1.0","name":"sealane","type":"sealane-cni"}`
	full    = `{
  "cniVersion": "0.4.0", "name": "lane.1-a_b", "type": "sealane-cni",
  "socket": "/run/other/cni.sock", "delQueueDir": "/var/lib/other",
  "capabilities": {"portMappings": true}, "runtimeConfig": {"portMappings": [{"hostPort": 80}], "ips": []}, "portmap": {"snat": true}, "args": {"cni": {}},
  "cni.dev/valid-attachments": [{"containerID": "c1", "ifname": "eth0"}],
  "cni.dev/attachments": [], "example.org/extension": 7,
  "prevResult": {
    "cniVersion": "0.4.0",
    "interfaces": [{"name": "slp1", "mac": "ee:ee:ee:5e:a1:01"}, {"name": "eth0", "sandbox": "/run/netns/1"}],
    "ips": [{"version": "4", "interface": 1, "address": "10.244.1.2/32", "gateway": "169.254.1.1"},
            {"version": "6", "interface": 1, "address": "fd00::2/128"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "169.254.1.1"}], "dns": {}
  }
}`
)

func TestParseConfig(t *testing.T) {
	got, err := cni.ParseConfig([]byte(minimal))
	want := cni.Config{
		CNIVersion: "1.1.0", Name: "sealane",
		Socket: "/run/sealane/cni.sock", QueueDir: "/var/lib/sealane/cni-del",
	}
	if diff := cmp.Diff(want, got); err != nil || diff != "" {
		t.Errorf("error %v, config (-want +got):\n%s", err, diff)
	}

	got, err = cni.ParseConfig([]byte(full))
	if err != nil {
		t.Fatal(err)
	}
	prev := got.Prev
	got.Prev = nil
	want = cni.Config{
		CNIVersion: "0.4.0", Name: "lane.1-a_b",
		Socket: "/run/other/cni.sock", QueueDir: "/var/lib/other",
		Valid: []cni.AttachmentID{{ContainerID: "c1", IfName: "eth0"}}, ValidKnown: true,
		PortMappings: []json.RawMessage{[]byte(`{"hostPort": 80}`)}, Portmap: map[string]json.RawMessage{"snat": []byte("true")},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("config (-want +got):\n%s", diff)
	}
	if prev == nil || prev.CNIVersion != "1.1.0" || len(prev.Interfaces) != 2 || *prev.IPs[0].Interface != 1 {
		t.Errorf("previous result = %+v", prev)
	}
	if got := prev.IPs[1].Address; got.String() != "fd00::2/128" || !prev.IPs[0].Gateway.Equal(net.IPv4(169, 254, 1, 1)) {
		t.Errorf("previous addresses = %v", prev.IPs)
	}
}

func TestParseConfigRefuses(t *testing.T) {
	with := func(field string) string { return strings.Replace(minimal, "{", "{"+field+",", 1) }
	for name, tc := range map[string]struct {
		data string
		code uint
		says []string // the field, the value, the remedy
	}{
		"not JSON":         {`hello`, types.ErrDecodingFailure, []string{"not a JSON object", "invalid character", "/etc/cni/net.d"}},
		"null":             {`null`, types.ErrDecodingFailure, []string{"not a JSON object", "null"}},
		"a list":           {`[]`, types.ErrDecodingFailure, []string{"not a JSON object", "array"}},
		"no version":       {`{"name":"sealane"}`, types.ErrIncompatibleCNIVersion, []string{`cniVersion is ""`, "use one of 0.3.1, 0.4.0, 1.0.0, 1.1.0"}},
		"version to come":  {strings.Replace(minimal, "1.1.0", "2.0.0", 1), types.ErrIncompatibleCNIVersion, []string{`cniVersion is "2.0.0"`}},
		"version a number": {strings.Replace(minimal, `"1.1.0"`, "1.1", 1), types.ErrInvalidNetworkConfig, []string{"cniVersion is 1.1"}},
		"no name":          {`{"cniVersion":"1.1.0"}`, types.ErrInvalidNetworkConfig, []string{"name is missing"}},
		"bad name":         {strings.Replace(minimal, `"sealane"`, `"a/b"`, 1), types.ErrInvalidNetworkConfig, []string{`name is "a/b"`, "use letters"}},
		"relative socket":  {with(`"socket":"cni.sock"`), types.ErrInvalidNetworkConfig, []string{`socket is "cni.sock"`, "absolute path"}},
		"long socket":      {with(`"socket":"/` + strings.Repeat("s", 107) + `"`), types.ErrInvalidNetworkConfig, []string{"socket is", "108 bytes", "at most 107", "…"}},
		"socket a number":  {with(`"socket":7`), types.ErrInvalidNetworkConfig, []string{"socket is 7", "number"}},
		"empty queue":      {with(`"delQueueDir":""`), types.ErrInvalidNetworkConfig, []string{`delQueueDir is ""`, "absolute path"}},
		"zero in path":     {with(`"delQueueDir":"/a\u0000b"`), types.ErrInvalidNetworkConfig, []string{"delQueueDir is", "absolute path"}},
		"unknown field":    {with(`"mtuu":1400`), types.ErrUnsupportedField, []string{`"mtuu"`, "1400", "remove it"}},
		"other case":       {with(`"Socket":"/s"`), types.ErrUnsupportedField, []string{`"Socket"`}},
		"foreign IPAM":     {with(`"ipam":{"type":"host-local"}`), types.ErrUnsupportedField, []string{`"ipam"`, "host-local", "podCIDRs"}},
		"DNS":              {with(`"dns":{"domain":"x"}`), types.ErrUnsupportedField, []string{`"dns"`, "kubelet"}},
		"bad result":       {with(`"prevResult":{"ips":[{"address":"10.0.0.0.1/8"}]}`), types.ErrInvalidNetworkConfig, []string{"prevResult is", "10.0.0.0.1"}},
		"null in result":   {with(`"prevResult":{"ips":[null]}`), types.ErrInvalidNetworkConfig, []string{"prevResult is", "null in a list"}},
		"bad runtime":      {with(`"runtimeConfig":{"portMappings":{}}`), types.ErrInvalidNetworkConfig, []string{"runtimeConfig is", "portMappings"}},
		"bad portmap":      {with(`"portmap":[]`), types.ErrInvalidNetworkConfig, []string{"portmap is []", "/etc/cni/net.d"}},
		"bad attachments":  {with(`"cni.dev/valid-attachments":{}`), types.ErrInvalidNetworkConfig, []string{"cni.dev/valid-attachments is {}"}},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := cni.ParseConfig([]byte(tc.data))
			wantError(t, err, tc.code, tc.says...)
		})
	}
}

func TestValidAttachmentsAreKnownOnlyIfTheyAreThere(t *testing.T) {
	for text, want := range map[string]bool{
		`"cni.dev/valid-attachments":null`: false,
		`"cni.dev/valid-attachments":[]`:   true,
		`"cni.dev/attachments":[]`:         false,
	} {
		cfg, err := cni.ParseConfig([]byte(strings.Replace(minimal, "{", "{"+text+",", 1)))
		if err != nil || cfg.ValidKnown != want {
			t.Errorf("%s: known = %v, %v; want %v", text, cfg.ValidKnown, err, want)
		}
	}
}

func FuzzParseConfig(f *testing.F) {
	f.Add([]byte(minimal))
	f.Add([]byte(full))
	f.Add([]byte(`{"cniVersion":"1.1.0","name":"x","prevResult":{"cniVersion":"1.1.0","ips":[{"address":"fd00::1/128","interface":9}]}}`))
	f.Add([]byte(`{"cniVersion":"1.0.0","name":"x","prevResult":{"interfaces":[{}],"routes":[{"dst":"::/0","table":7}]}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		cfg, err := cni.ParseConfig(data)
		if err != nil {
			var own *cni.Error
			if !errors.As(err, &own) || own.Remedy == "" || own.Code == 0 {
				t.Fatalf("error lacks code or remedy: %#v", err)
			}
			return
		}
		if cfg.Name == "" || cfg.Socket == "" || cfg.QueueDir == "" || cfg.CNIVersion == "" {
			t.Errorf("config is incomplete: %+v", cfg)
		}
		if cfg.Prev == nil {
			return
		}
		cni.Addresses(cfg.Prev) // must not panic, nor must the conversion
		if _, err := cfg.Prev.GetAsVersion(cfg.CNIVersion); err != nil {
			t.Errorf("convert the previous result to %s: %v", cfg.CNIVersion, err)
		}
	})
}

func TestParseArgs(t *testing.T) {
	const kubelet = "IgnoreUnknown=1;K8S_POD_NAMESPACE=kube-system;K8S_POD_NAME=dns-1.a;" +
		"K8S_POD_INFRA_CONTAINER_ID=c0ffee;K8S_POD_UID=6F1C-9;FUTURE=x=y"
	for args, want := range map[string]cni.PodRef{
		"":                                   {},
		";":                                  {},
		kubelet:                              {Namespace: "kube-system", Name: "dns-1.a", UID: "6F1C-9"},
		"K8S_POD_NAMESPACE=a;K8S_POD_NAME=b": {Namespace: "a", Name: "b"},
		"IgnoreUnknown=true;OTHER=1":         {},
	} {
		if got, err := cni.ParseArgs(args); err != nil || got != want {
			t.Errorf("ParseArgs(%q) = %+v, %v; want %+v", args, got, err, want)
		}
	}
	for args, says := range map[string]string{
		"K8S_POD_NAME":                `"K8S_POD_NAME" is not of the form KEY=VALUE`,
		"=x":                          `"=x" is not`,
		"OTHER=1":                     `unknown key "OTHER"`,
		"IgnoreUnknown=maybe":         `IgnoreUnknown is "maybe"`,
		"IgnoreUnknown=false;OTHER=1": `unknown key "OTHER"`,
		"K8S_POD_NAME=b":              `K8S_POD_NAMESPACE is "": it is empty`,
		"K8S_POD_NAMESPACE=a":         `K8S_POD_NAME is ""`,
		"K8S_POD_NAMESPACE=../etc;K8S_POD_NAME=b":                           `K8S_POD_NAMESPACE is "../etc"`,
		"K8S_POD_NAMESPACE=a;K8S_POD_NAME=..":                               `K8S_POD_NAME is ".."`,
		"K8S_POD_NAMESPACE=a;K8S_POD_NAME=B":                                `K8S_POD_NAME is "B"`,
		"K8S_POD_UID=u/1;K8S_POD_NAMESPACE=a":                               `K8S_POD_NAME is ""`,
		"K8S_POD_UID=/;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b":                  `K8S_POD_UID is "/"`,
		"K8S_POD_NAMESPACE=" + strings.Repeat("a", 254) + ";K8S_POD_NAME=b": "more than 253 bytes",
	} {
		_, err := cni.ParseArgs(args)
		wantError(t, err, types.ErrInvalidEnvironmentVariables, "CNI_ARGS", says, "K8S_POD_UID=…")
	}
}

func FuzzParseArgs(f *testing.F) {
	f.Add("IgnoreUnknown=1;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b;K8S_POD_UID=c")
	f.Add("K8S_POD_NAME=;;=")
	f.Fuzz(func(t *testing.T, args string) {
		pod, err := cni.ParseArgs(args)
		if err != nil || pod.IsZero() {
			return
		}
		if pod.Name == "" || pod.Namespace == "" || strings.ContainsAny(pod.Namespace+pod.Name+pod.UID, "/\\\x00\n ") {
			t.Errorf("pod = %q", pod)
		}
	})
}

// wantError fails unless err is a cni.Error with the code, and its text contains all of
// says.
func wantError(t *testing.T, err error, code uint, says ...string) {
	t.Helper()
	var own *cni.Error
	if !errors.As(err, &own) {
		t.Fatalf("error = %#v, want a cni.Error", err)
	}
	if own.Code != code || cni.CodeOf(err) != code {
		t.Errorf("code = %d, want %d: %v", own.Code, code, err)
	}
	for _, say := range says {
		if !strings.Contains(err.Error(), say) {
			t.Errorf("error does not say %q: %v", say, err)
		}
	}
}
