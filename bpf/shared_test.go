// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/cni/podnet"
	"github.com/sealane/sealane/overlay"
)

// constants reads what the C side defines by name, as it is written there.
func constants(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	definition := regexp.MustCompile(`(?m)^#define (\w+) ([^(\n][^\n/]*)|\b([A-Z][A-Z0-9_]+) = (\w+)[ ,}]`)
	files, err := filepath.Glob("src/*.[ch]")
	if err != nil || len(files) == 0 {
		t.Fatal("no sources", err)
	}
	for _, name := range files {
		source, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range definition.FindAllStringSubmatch(string(source), -1) {
			all[m[1]+m[3]] = strings.TrimSpace(m[2] + m[4])
		}
	}
	return all
}

// inC writes a hardware address as a C initializer.
func inC(mac net.HardwareAddr) string {
	return fmt.Sprintf("{ %#02x, %#02x, %#02x, %#02x, %#02x, %#02x }", mac[0], mac[1], mac[2], mac[3], mac[4], mac[5])
}

// TestConstantsMatchC compares what the programs and the Go side both write down.
func TestConstantsMatchC(t *testing.T) {
	c := constants(t)
	gateway := podnet.Gateway(netip.IPv4Unspecified()).As4()
	for name, want := range map[string]uint32{
		"LANE_MARK": overlay.LaneMark, "FORWARDED_MARK": overlay.ForwardedMark, "ANSWER_MARK": overlay.AnswerMark,
		"GATEWAY_V4":         binary.BigEndian.Uint32(gateway[:]),
		"FORWARD_POD_REMOTE": uint32(overlay.PodRemote), "FORWARD_NODE_REMOTE": uint32(overlay.NodeRemote),
		"FORWARD_NODE_LOCAL": uint32(overlay.NodeLocal), "FORWARD_POD_LOCAL": uint32(overlay.PodLocal),
		"FORWARD_CLUSTER": uint32(overlay.Cluster),
		"VERDICT_ALLOWED": uint32(VerdictAllowed), "VERDICT_DENIED": uint32(VerdictDenied), "VERDICT_DRY_RUN_DENIED": uint32(VerdictDryRunDenied),
		"IPPROTO_ICMP": unix.IPPROTO_ICMP, "IPPROTO_TCP": unix.IPPROTO_TCP, "IPPROTO_UDP": unix.IPPROTO_UDP,
		"IPPROTO_ICMPV6": unix.IPPROTO_ICMPV6, "IPPROTO_SCTP": unix.IPPROTO_SCTP,
		"IPPROTO_HOPOPTS": unix.IPPROTO_HOPOPTS, "IPPROTO_ROUTING": unix.IPPROTO_ROUTING, "IPPROTO_FRAGMENT": unix.IPPROTO_FRAGMENT,
		"IPPROTO_AH": unix.IPPROTO_AH, "IPPROTO_DSTOPTS": unix.IPPROTO_DSTOPTS,
		"ETH_P_IP": unix.ETH_P_IP, "ETH_P_ARP": unix.ETH_P_ARP, "ETH_P_IPV6": unix.ETH_P_IPV6,
	} {
		if got, err := strconv.ParseUint(c[name], 0, 32); err != nil || uint32(got) != want {
			t.Errorf("%s is %q in C and %#x in Go (%v)", name, c[name], want, err)
		}
	}
	for name, mac := range map[string]net.HardwareAddr{"HOST_MAC": podnet.HostMAC(), "VXLAN_MAC": overlay.VXLANMAC()} {
		if want := inC(mac); c[name] != want {
			t.Errorf("%s is %q in C and %q in Go", name, c[name], want)
		}
	}
}
