// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package ipam

import (
	"errors"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

func exampleLease() Lease {
	return Lease{
		Owner: Owner{ContainerID: "c0ffee", IfName: "eth0"},
		Meta: Meta{
			Namespace: "default", Name: "web-1", UID: "6f1c", Netns: "/var/run/netns/cni-1", Network: "sealane",
		},
		Addresses: []netip.Addr{netip.MustParseAddr("10.244.1.5"), netip.MustParseAddr("fd00:10:244:1::5")},
		Created:   time.Date(2026, 3, 4, 5, 6, 7, 89, time.UTC),
	}
}

const exampleStored = `{
  "version": 1,
  "containerID": "c0ffee",
  "ifName": "eth0",
  "podNamespace": "default",
  "podName": "web-1",
  "podUID": "6f1c",
  "netns": "/var/run/netns/cni-1",
  "network": "sealane",
  "addresses": [
    "10.244.1.5",
    "fd00:10:244:1::5"
  ],
  "created": "2026-03-04T05:06:07.000000089Z"
}
`

// The stored form is a promise to later versions: they must be able to read this text.
func TestLeaseStoredForm(t *testing.T) {
	data, err := exampleLease().encode()
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(exampleStored, string(data)); diff != "" {
		t.Errorf("stored form (-want +got):\n%s", diff)
	}
	released := exampleLease()
	released.Released = released.Created.Add(time.Hour)
	for _, want := range []Lease{exampleLease(), released} {
		data, err := want.encode()
		if err != nil {
			t.Fatal(err)
		}
		got, err := ParseLease(data)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got, equateAddrs()); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
	}
}

func TestParseLeaseRefuses(t *testing.T) {
	change := func(from, to string) string { return strings.Replace(exampleStored, from, to, 1) }
	for name, tc := range map[string]struct{ data, says string }{
		"nothing":          {"", "EOF"},
		"half a file":      {exampleStored[:100], "unexpected EOF"},
		"zeroes":           {strings.Repeat("\x00", 64), "invalid character"},
		"two objects":      {exampleStored + "{}", "follows"},
		"other version":    {change(`"version": 1`, `"version": 2`), "version is 2, want 1"},
		"no container":     {change("c0ffee", ""), `container ID ""`},
		"no interface":     {change("eth0", ""), `interface name ""`},
		"no time":          {change("2026-03-04T05:06:07.000000089Z", "0001-01-01T00:00:00Z"), "created is missing"},
		"no address":       {change("\"10.244.1.5\",\n    \"fd00:10:244:1::5\"", ""), "0 addresses"},
		"not an address":   {change("10.244.1.5", "10.244.1"), "10.244.1"},
		"mapped address":   {change("10.244.1.5", "::ffff:10.244.1.5"), "cannot be a pod's"},
		"zoned address":    {change("fd00:10:244:1::5", "fe80::1%eth0"), "cannot be a pod's"},
		"multicast":        {change("10.244.1.5", "224.0.0.1"), "cannot be a pod's"},
		"one family twice": {change("fd00:10:244:1::5", "10.244.1.6"), "same family"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseLease([]byte(tc.data))
			if !errors.Is(err, ErrLease) || !strings.Contains(err.Error(), tc.says) {
				t.Errorf("error = %v; want ErrLease that says %q", err, tc.says)
			}
		})
	}
}

func TestFileNames(t *testing.T) {
	for name, ok := range map[string]bool{
		"10.244.1.5.json":                  true,
		"10.244.1.5_fd00:10:244:1::5.json": true,
		"fd00::5.json":                     true,
		"10.244.1.5":                       false,
		".json":                            false,
		"010.244.1.5.json":                 false,
		"fd00:0::5.json":                   false, // not the canonical spelling
		"10.244.1.5_10.244.1.6.json":       false,
		"10.244.1.5_fd00::5_fd00::6.json":  false,
		"readme.json":                      false,
	} {
		addrs, got := parseFileName(name)
		if got != ok {
			t.Errorf("parseFileName(%q) = %v %v, want %v", name, addrs, got, ok)
		}
	}
}

func FuzzParseLease(f *testing.F) {
	f.Add([]byte(exampleStored))
	f.Add([]byte(strings.Replace(exampleStored, `"created"`, `"released": "2026-03-04T05:06:07Z", "created"`, 1)))
	f.Add([]byte(`{"version":1,"containerID":"a","ifName":"b","addresses":["fd00::1"],"created":"2026-01-01T00:00:00+23:59"}`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		lease, err := ParseLease(data)
		if err != nil {
			if !errors.Is(err, ErrLease) {
				t.Fatalf("error does not wrap ErrLease: %v", err)
			}
			return
		}
		again, err := lease.encode()
		if err != nil {
			t.Fatalf("what was read cannot be written: %v", err)
		}
		got, err := ParseLease(again)
		if err != nil {
			t.Fatalf("what was written cannot be read: %v", err)
		}
		if diff := cmp.Diff(lease, got, equateAddrs(), cmpopts.EquateApproxTime(0)); diff != "" {
			t.Errorf("read back (-want +got):\n%s", diff)
		}
		addrs, ok := parseFileName(fileName(lease.Addresses))
		if !ok || !cmp.Equal(addrs, lease.Addresses, equateAddrs()) {
			t.Errorf("file name %q says %v", fileName(lease.Addresses), addrs)
		}
	})
}

func equateAddrs() cmp.Option {
	return cmp.Comparer(func(a, b netip.Addr) bool { return a == b })
}
