// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/rotation"
	"github.com/sealane/sealane/overlay"
)

// ErrConfig says that a setting cannot be used; the text names flag, value and
// remedy.
var ErrConfig = errors.New("bad configuration")

// Config is what the daemon is told by its command line.
type Config struct {
	NodeName            string
	Namespace           string
	Kubeconfig          string
	APIServer           string
	Lane                overlay.Kind
	InsecurePlaintext   bool
	LanePort            uint16
	MTU                 int // of the lanes, in bytes; 0: from the underlay
	ClusterPodCIDRs     []netip.Prefix
	NodeCIDRs           []netip.Prefix // empty: addresses of nodes are not confined
	Uplinks             []string       // empty: found by addresses and default routes
	MetricsAddress      string
	MetricsAllowFrom    []netip.Prefix // who reads reports and metrics besides nodes
	ControllerPort      uint16         // where the controller serves on its node; 0: nowhere
	LogLevel            slog.Level
	CNIConfDir          string
	StateDir            string
	RunDir              string
	BPFDir              string
	CertificateLifetime time.Duration
	// ExpiredGrace is how long lanes outlive what vouches for them; 0: not at all.
	ExpiredGrace     time.Duration
	AcceptedRoots    []keymgr.Hash // roots that the operator vouches for
	StrictContinuity bool          // refuse certificate keys that the one before does not vouch for
	RotationPeriod   time.Duration // 0: only when asked for
	PostQuantum      keymgr.PSKMode
	PairingPort      uint16
	Version          string // of the build; not a flag
}

// Register puts the flags on fs. Values are stored when fs is parsed; call
// [Config.Validate] after that.
func (c *Config) Register(fs *flag.FlagSet) {
	c.Lane = overlay.WireGuard
	fs.StringVar(&c.NodeName, "node-name", "", "name of this node's Node object")
	fs.StringVar(&c.Namespace, "namespace", "sealane-system", "namespace that Sealane runs in")
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig file; empty: the pod's ServiceAccount")
	fs.StringVar(&c.APIServer, "api-server", "", "the API server's own address (https://host:port), so that no kube-proxy is needed; empty: as the pod or kubeconfig says")
	fs.Func("lane", "encapsulation between nodes: wireguard or vxlan (default wireguard)", func(s string) error {
		c.Lane = overlay.Kind(s)
		return nil
	})
	fs.BoolVar(&c.InsecurePlaintext, "insecure-plaintext", false, "allow lanes without encryption (--lane=vxlan)")
	c.LanePort = 51871
	fs.Func("lane-port", "first of the four UDP ports of WireGuard lanes (default 51871)", parseInto(&c.LanePort, parsePort))
	fs.IntVar(&c.MTU, "mtu", 0, "MTU of lanes and pods in bytes; 0: the underlay's less the overhead")
	fs.Func("cluster-pod-cidrs", "the cluster's pod ranges, comma-separated; empty: from kubeadm's configuration, else the nodes' ranges", parseInto(&c.ClusterPodCIDRs, parsePrefixes))
	fs.Func("node-cidrs", "ranges that addresses of nodes lie in, comma-separated; empty: not confined", parseInto(&c.NodeCIDRs, parsePrefixes))
	fs.Func("uplinks", "devices that the leak guard watches, comma-separated; empty: those with the node's addresses or a default route", parseInto(&c.Uplinks, parseNames))
	fs.StringVar(&c.MetricsAddress, "metrics-address", ":9754", "address of /metrics, /status, /healthz and /readyz")
	fs.Func("metrics-allow-from", "address ranges besides the nodes' from which /metrics and /status may be read, comma-separated; ranges of pods open this port and the controller's to pods", parseInto(&c.MetricsAllowFrom, parsePrefixes))
	c.ControllerPort = 9755
	fs.Func("controller-port", "TCP port of the controller on its node, which pods may not reach; 0: none (default 9755)", func(s string) (err error) {
		if c.ControllerPort = 0; s != "0" {
			c.ControllerPort, err = parsePort(s)
		}
		return err
	})
	fs.TextVar(&c.LogLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
	fs.StringVar(&c.CNIConfDir, "cni-conf-dir", "/etc/cni/net.d", "where the runtime looks for CNI configurations")
	fs.StringVar(&c.StateDir, "state-dir", "/var/lib/sealane", "keys, leases and other state that outlives a reboot")
	fs.StringVar(&c.RunDir, "run-dir", "/run/sealane", "sockets")
	fs.StringVar(&c.BPFDir, "bpf-dir", "/sys/fs/bpf/sealane", "folder on a bpffs for pinned programs and maps")
	fs.DurationVar(&c.RotationPeriod, "rotation-period", rotation.DefaultPeriod, "how old a WireGuard key gets before the next one takes over; at least 1m; 0: only when asked for, and after a reboot")
	c.PostQuantum = keymgr.PSKRequired
	fs.Func("post-quantum", "preshared keys by X25519MLKEM768: required, preferred (an attacker can talk lanes down) or off (default required)", func(s string) error {
		c.PostQuantum = keymgr.PSKMode(s)
		return nil
	})
	c.PairingPort = 51875
	fs.Func("pairing-port", "TCP port of the exchange of preshared keys (default 51875)", parseInto(&c.PairingPort, parsePort))
	fs.DurationVar(&c.CertificateLifetime, "certificate-lifetime", 7*24*time.Hour, "lifetime of node certificates to ask for; at least 10m")
	fs.DurationVar(&c.ExpiredGrace, "expired-grace", keymgr.DefaultGrace, "how long a lane goes on when the certificate or statement behind it has ended and nothing newer came; 0: not at all")
	fs.Func("accepted-roots", "SHA-256 hashes of root certificates (DER), comma-separated, that are trusted although no root before vouches for them; for the time after a disaster", parseInto(&c.AcceptedRoots, parseHashes))
	fs.BoolVar(&c.StrictContinuity, "strict-continuity", false, "refuse a known node's new certificate key unless the one before vouches for it; otherwise that is an alarm")
}

// Validate checks what no single flag can.
func (c *Config) Validate() error {
	switch {
	case c.NodeName == "":
		return bad("node-name", "", "give the name of this node (spec.nodeName by the downward API)")
	case c.Lane != overlay.WireGuard && c.Lane != overlay.VXLAN:
		return bad("lane", c.Lane, "use wireguard or vxlan")
	case c.Lane == overlay.VXLAN && !c.InsecurePlaintext:
		return bad("lane", c.Lane, "these lanes are not encrypted; use wireguard, or accept it with --insecure-plaintext")
	case c.LanePort > 65532:
		return bad("lane-port", c.LanePort, "leave room for four ports: use at most 65532")
	case c.MTU != 0 && (c.MTU < 1280 || c.MTU > 65535):
		return bad("mtu", c.MTU, "use 1280 (IPv6's least) to 65535, or 0 for automatic")
	}
	if c.MetricsAddress != "" {
		if _, err := c.metricsPort(); err != nil {
			return bad("metrics-address", c.MetricsAddress, "write it like :9754 or 192.0.2.1:9754")
		}
	}
	if err := c.validateKeys(); err != nil {
		return err
	}
	for flag, dir := range map[string]string{"state-dir": c.StateDir, "run-dir": c.RunDir, "bpf-dir": c.BPFDir, "cni-conf-dir": c.CNIConfDir} {
		if !filepath.IsAbs(dir) {
			return bad(flag, dir, "use an absolute path")
		}
	}
	return nil
}

// bad names a flag that cannot be used, its value and the remedy.
func bad(flag string, value any, remedy string) error {
	return fmt.Errorf("%w: --%s=%v: %s", ErrConfig, flag, value, remedy)
}

// validateKeys checks what is about keys and certificates.
func (c *Config) validateKeys() error {
	switch {
	case c.ExpiredGrace < 0:
		return bad("expired-grace", c.ExpiredGrace, "use 0 or more")
	case c.RotationPeriod != 0 && c.RotationPeriod < rotation.MinPeriod:
		return bad("rotation-period", c.RotationPeriod, "use at least 1m, or 0 for rotation only when asked for")
	case !slices.Contains([]keymgr.PSKMode{keymgr.PSKRequired, keymgr.PSKPreferred, keymgr.PSKOff}, c.PostQuantum):
		return bad("post-quantum", c.PostQuantum, "use required, preferred or off")
	case c.CertificateLifetime < 10*time.Minute:
		return bad("certificate-lifetime", c.CertificateLifetime, "use at least 10m, which is Kubernetes' least")
	}
	return nil
}

func (c *Config) metricsPort() (uint16, error) {
	_, port, err := net.SplitHostPort(c.MetricsAddress)
	if err != nil {
		return 0, err
	}
	return parsePort(port)
}

// ports returns the ports of this node that are not for pods.
func (c *Config) ports() overlay.Ports {
	p := overlay.Ports{Readers: c.MetricsAllowFrom}
	if c.Lane != overlay.VXLAN {
		p.Pairing = c.PairingPort
	}
	if port, err := c.metricsPort(); err == nil {
		p.Own = append(p.Own, port)
	}
	if c.ControllerPort != 0 {
		p.Own = append(p.Own, c.ControllerPort)
	}
	return p
}

// reserved returns the ports of this node that no hostPort may have.
func (c *Config) reserved() []string {
	p := c.ports()
	var all []string
	for _, port := range overlay.TunnelPorts(c.Lane, c.LanePort) {
		all = append(all, fmt.Sprintf("%d/udp", port))
	}
	if p.Pairing != 0 {
		all = append(all, fmt.Sprintf("%d/tcp", p.Pairing))
	}
	for _, port := range p.Own {
		all = append(all, fmt.Sprintf("%d/tcp", port))
	}
	return all
}

func parseInto[T any](to *T, parse func(string) (T, error)) func(string) error {
	return func(s string) (err error) {
		*to, err = parse(s)
		return err
	}
}

func parsePort(s string) (uint16, error) {
	a, err := netip.ParseAddrPort("0.0.0.0:" + s)
	if err != nil || a.Port() == 0 {
		return 0, fmt.Errorf("%q is no port: use 1 to 65535", s)
	}
	return a.Port(), nil
}

func parsePrefixes(s string) ([]netip.Prefix, error) {
	var all []netip.Prefix
	for _, text := range split(s) {
		p, err := netip.ParsePrefix(text)
		if err != nil {
			return nil, fmt.Errorf("%q is no address range: write it like 10.244.0.0/16", text)
		}
		all = append(all, p.Masked())
	}
	return all, nil
}

func parseHashes(s string) ([]keymgr.Hash, error) {
	var all []keymgr.Hash
	for _, text := range split(s) {
		var h keymgr.Hash
		if err := h.UnmarshalText([]byte(text)); err != nil || h.String() != text {
			return nil, fmt.Errorf("%q is no hash of a root: use the 64 lower-case digits of openssl x509 -in root.crt -outform DER | sha256sum", text)
		}
		all = append(all, h)
	}
	return all, nil
}

func parseNames(s string) ([]string, error) { return split(s), nil }

func split(s string) []string {
	var all []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			all = append(all, part)
		}
	}
	return all
}
