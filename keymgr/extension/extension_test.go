// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package extension_test

import (
	"bytes"
	"net/netip"
	"slices"
	"testing"

	"github.com/sealane/sealane/keymgr/extension"
)

func TestPodCIDRExtension(t *testing.T) {
	for _, list := range [][]string{{}, {"10.244.1.0/24"}, {"fd00::/64", "10.0.0.0/8"}, {"0.0.0.0/0", "::/0"}} {
		var prefixes []netip.Prefix
		for _, s := range list {
			prefixes = append(prefixes, netip.MustParsePrefix(s))
		}
		ext, err := extension.PodCIDRs(prefixes)
		if err != nil {
			t.Fatalf("%v: %v", list, err)
		}
		if ext.Critical {
			t.Errorf("%v: extension is critical", list)
		}
		got, err := extension.ParsePodCIDRs(ext.Value)
		if err != nil || !slices.Equal(got, prefixes) {
			t.Errorf("%v came back as %v, %v", list, got, err)
		}
	}
	// The bytes are a format that others read.
	ext, err := extension.PodCIDRs([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")})
	if want := "\x30\x0c\x16\x0a10.0.0.0/8"; err != nil || string(ext.Value) != want {
		t.Errorf("extension is %x and error %v, want %x", ext.Value, err, want)
	}
}

func TestPodCIDRExtensionRefuses(t *testing.T) {
	for _, list := range [][]netip.Prefix{
		{{}},
		{netip.MustParsePrefix("10.0.0.1/8")},
		{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("10.1.0.0/16")},
		{netip.MustParsePrefix("::ffff:10.0.0.0/104")},
		slices.Repeat([]netip.Prefix{netip.MustParsePrefix("10.0.0.0/8")}, 9),
	} {
		if ext, err := extension.PodCIDRs(list); err == nil {
			t.Errorf("%v was encoded as %x", list, ext.Value)
		}
	}
	for name, der := range map[string]string{
		"empty":              "",
		"no sequence":        "\x16\x0a10.0.0.0/8",
		"trailing byte":      "\x30\x0c\x16\x0a10.0.0.0/8\x00",
		"long form length":   "\x30\x81\x0c\x16\x0a10.0.0.0/8",
		"UTF8String":         "\x30\x0c\x0c\x0a10.0.0.0/8",
		"not masked":         "\x30\x0c\x16\x0a10.0.0.1/8",
		"leading zero":       "\x30\x0d\x16\x0b10.0.0.0/08",
		"upper case address": "\x30\x0b\x16\x09FD00::/64",
	} {
		if got, err := extension.ParsePodCIDRs([]byte(der)); err == nil {
			t.Errorf("%s: taken as %v", name, got)
		}
	}
}

// One list of prefixes has one encoding, so whatever parses is what would be written.
func FuzzParsePodCIDRs(f *testing.F) {
	f.Add([]byte("\x30\x0c\x16\x0a10.0.0.0/8"))
	f.Add([]byte("\x30\x17\x16\x0a10.0.0.0/8\x16\x09fd00::/64"))
	f.Add([]byte("\x30\x00"))
	f.Fuzz(func(t *testing.T, der []byte) {
		prefixes, err := extension.ParsePodCIDRs(der)
		if err != nil {
			return
		}
		ext, err := extension.PodCIDRs(prefixes)
		if err != nil || !bytes.Equal(ext.Value, der) {
			t.Fatalf("%x is %v, which is written %x (%v)", der, prefixes, ext.Value, err)
		}
	})
}

func TestAddresses(t *testing.T) {
	for _, list := range [][]string{{}, {"192.0.2.1"}, {"2001:db8::1", "192.0.2.1"}} {
		var addrs []netip.Addr
		for _, s := range list {
			addrs = append(addrs, netip.MustParseAddr(s))
		}
		ext, err := extension.Addresses(addrs)
		if err != nil {
			t.Fatalf("%v: %v", list, err)
		}
		if ext.Critical || ext.Id.Equal(extension.PodCIDRsID()) {
			t.Errorf("%v: extension %v, critical %t", list, ext.Id, ext.Critical)
		}
		got, err := extension.ParseAddresses(ext.Value)
		if err != nil || !slices.Equal(got, addrs) {
			t.Errorf("%v came back as %v, %v", list, got, err)
		}
	}
	// The bytes are a format that others read.
	ext, err := extension.Addresses([]netip.Addr{netip.MustParseAddr("10.0.0.8")})
	if want := "\x30\x0a\x16\x0810.0.0.8"; err != nil || string(ext.Value) != want {
		t.Errorf("extension is %x and error %v, want %x", ext.Value, err, want)
	}
}

func TestAddressesRefuses(t *testing.T) {
	one := netip.MustParseAddr("192.0.2.1")
	nine := []netip.Addr{one}
	for len(nine) <= extension.MaxAddresses {
		nine = append(nine, nine[len(nine)-1].Next())
	}
	for _, list := range [][]netip.Addr{{one, one}, {{}}, {netip.MustParseAddr("fe80::1%eth0")}, {netip.MustParseAddr("::ffff:192.0.2.1")}, nine} {
		if ext, err := extension.Addresses(list); err == nil {
			t.Errorf("%v was encoded as %x", list, ext.Value)
		}
	}
	for name, der := range map[string]string{
		"empty":            "",
		"no sequence":      "\x16\x0810.0.0.8",
		"trailing byte":    "\x30\x0a\x16\x0810.0.0.8\x00",
		"long form length": "\x30\x81\x0a\x16\x0810.0.0.8",
		"UTF8String":       "\x30\x0a\x0c\x0810.0.0.8",
		"a prefix":         "\x30\x0c\x16\x0a10.0.0.0/8",
		"twice":            "\x30\x14\x16\x0810.0.0.8\x16\x0810.0.0.8",
		"upper case":       "\x30\x09\x16\x07FD00::1",
		"IPv4 in IPv6":     "\x30\x11\x16\x0f::ffff:10.0.0.8",
	} {
		if got, err := extension.ParseAddresses([]byte(der)); err == nil {
			t.Errorf("%s: taken as %v", name, got)
		}
	}
}

// One list of addresses has one encoding, so whatever parses is what would be written.
func FuzzParseAddresses(f *testing.F) {
	f.Add([]byte("\x30\x0a\x16\x0810.0.0.8"))
	f.Add([]byte("\x30\x13\x16\x0810.0.0.8\x16\x07fd00::1"))
	f.Add([]byte("\x30\x00"))
	f.Fuzz(func(t *testing.T, der []byte) {
		addrs, err := extension.ParseAddresses(der)
		if err != nil {
			return
		}
		ext, err := extension.Addresses(addrs)
		if err != nil || !bytes.Equal(ext.Value, der) || len(addrs) > extension.MaxAddresses {
			t.Fatalf("%x is %v, which is written %x (%v)", der, addrs, ext.Value, err)
		}
	})
}
