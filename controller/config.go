// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"flag"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/sealane/sealane/controller/authority"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/approval"
	"github.com/sealane/sealane/keymgr/ca"
)

// leaseName is the Lease of the election.
const leaseName = "sealane-controller"

// Config is what the command line of the controller sets.
type Config struct {
	// Kubeconfig is the path of a file. Empty means the pod's ServiceAccount.
	Kubeconfig string
	// APIServer is a URL. Empty means the one of the pod or of Kubeconfig.
	APIServer string
	Namespace string
	// Identity names this candidate in the election. Empty means the host's name.
	Identity string
	CA       authority.Config
	// CertificateLifetime is the longest lifetime of a node certificate.
	CertificateLifetime time.Duration
	// MaxPerHour is how many certificates one node gets within an hour. Zero means
	// the default of package ca.
	MaxPerHour int
	// ClusterPodCIDRs and NodeCIDRs are where pod ranges and addresses of nodes lie.
	ClusterPodCIDRs, NodeCIDRs []netip.Prefix
	MetricsAddress             string
	LogLevel                   slog.Level
}

// Register defines the flags on fs. Call [Config.Validate] after fs is parsed.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig file; empty: the pod's ServiceAccount")
	fs.StringVar(&c.APIServer, "api-server", "", "the API server's own address (https://host:port), so that no kube-proxy is needed; empty: as the pod or kubeconfig says")
	fs.StringVar(&c.Namespace, "namespace", kube.DefaultNamespace, "namespace that Sealane runs in")
	fs.StringVar(&c.Identity, "identity", "", "name of this candidate in the election of a leader; empty: the host's name")
	c.CA.Mode = authority.ModeSelf
	fs.Func("ca-mode", "root of all node certificates: self, secret or cluster (default self)", func(s string) error {
		c.CA.Mode = authority.Mode(s)
		return nil
	})
	fs.StringVar(&c.CA.Secret, "ca-secret", "", "Secret with the root (tls.crt, tls.key), for --ca-mode=secret")
	fs.StringVar(&c.CA.CertificateFile, "ca-cert", "", "file with the cluster's CA certificate, for --ca-mode=cluster")
	fs.StringVar(&c.CA.KeyFile, "ca-key", "", "file with the cluster's CA key, for --ca-mode=cluster")
	fs.DurationVar(&c.CertificateLifetime, "certificate-lifetime", approval.DefaultLeafLifetime, "longest lifetime of node certificates, 10m to 168h")
	fs.DurationVar(&c.CA.RootLifetime, "root-lifetime", ca.DefaultRootLifetime, "lifetime of a root that the controller makes; replaced at 80 percent of it; at least 2 times the intermediate's")
	fs.DurationVar(&c.CA.IntermediateLifetime, "intermediate-lifetime", ca.DefaultIntermediateLifetime, "lifetime of the issuing intermediate, renewed at two thirds of it; at least 3 times --certificate-lifetime")
	fs.IntVar(&c.MaxPerHour, "max-certificates-per-hour", 0, "how many certificates one node gets within an hour; 0: 10, or 5 within --certificate-lifetime if that is more")
	fs.Func("cluster-pod-cidrs", "the cluster's pod ranges, comma-separated; no node is certified for others; empty: from kubeadm's configuration, else any", parseInto(&c.ClusterPodCIDRs))
	fs.Func("node-cidrs", "ranges that addresses of nodes lie in, comma-separated; empty: not confined", parseInto(&c.NodeCIDRs))
	fs.StringVar(&c.MetricsAddress, "metrics-address", ":9755", "address of /metrics, /crl, /healthz and /readyz")
	fs.TextVar(&c.LogLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
}

// parseInto reads a list of address ranges.
func parseInto(to *[]netip.Prefix) func(string) error {
	return func(s string) error {
		*to = nil
		for text := range strings.SplitSeq(s, ",") {
			if text = strings.TrimSpace(text); text == "" {
				continue
			}
			p, err := netip.ParsePrefix(text)
			if err != nil {
				return fmt.Errorf("%q is no address range: write it like 10.244.0.0/16", text)
			}
			*to = append(*to, p.Masked())
		}
		return nil
	}
}

// bad returns an error that names a flag, its value and the remedy.
func bad(flag string, value any, remedy string) error {
	return fmt.Errorf("%w: --%s=%v: %s", ErrConfig, flag, value, remedy)
}

// Validate checks the values, also against each other, and fills in the host's name.
func (c *Config) Validate() error {
	if err := c.validateCA(); err != nil {
		return err
	}
	switch {
	case c.CertificateLifetime < approval.MinLifetime || c.CertificateLifetime > kube.MaxValidity:
		return bad("certificate-lifetime", c.CertificateLifetime, fmt.Sprintf("use %v to %v", approval.MinLifetime, kube.MaxValidity))
	case c.CA.IntermediateLifetime < ca.LeavesPerIntermediate*c.CertificateLifetime:
		return bad("intermediate-lifetime", c.CA.IntermediateLifetime, fmt.Sprintf("use at least %d times --certificate-lifetime, %v",
			ca.LeavesPerIntermediate, ca.LeavesPerIntermediate*c.CertificateLifetime))
	case c.CA.RootLifetime < ca.IntermediatesPerRoot*c.CA.IntermediateLifetime:
		return bad("root-lifetime", c.CA.RootLifetime, fmt.Sprintf("use at least %d times --intermediate-lifetime, %v",
			ca.IntermediatesPerRoot, ca.IntermediatesPerRoot*c.CA.IntermediateLifetime))
	case c.MaxPerHour < 0:
		return bad("max-certificates-per-hour", c.MaxPerHour, "use at least 1, or 0 for the default")
	case c.Namespace == "":
		return bad("namespace", "", "name the namespace that Sealane runs in")
	}
	if c.Identity != "" {
		return nil
	}
	var err error
	if c.Identity, err = os.Hostname(); err != nil || c.Identity == "" {
		return bad("identity", "", fmt.Sprintf("set it, the host has no name: %v", err))
	}
	return nil
}

// validateCA checks that the settings of the CA fit its mode.
func (c *Config) validateCA() error {
	switch c.CA.Mode {
	case authority.ModeSelf, authority.ModeSecret, authority.ModeCluster:
	default:
		return bad("ca-mode", c.CA.Mode, "use self, secret or cluster")
	}
	switch files := c.CA.CertificateFile + c.CA.KeyFile; {
	case c.CA.Mode == authority.ModeSecret && c.CA.Secret == "":
		return bad("ca-secret", c.CA.Secret, "name the Secret with the root, which --ca-mode=secret needs")
	case c.CA.Mode == authority.ModeSecret && slices.Contains([]string{authority.StoreSecret, authority.RootSecret}, c.CA.Secret):
		return bad("ca-secret", c.CA.Secret, "use another name, the controller keeps its own keys in this one")
	case c.CA.Mode != authority.ModeSecret && c.CA.Secret != "":
		return bad("ca-secret", c.CA.Secret, "only --ca-mode=secret uses it")
	case c.CA.Mode != authority.ModeCluster && files != "":
		return bad("ca-cert", c.CA.CertificateFile, "only --ca-mode=cluster uses --ca-cert and --ca-key")
	case c.CA.Mode == authority.ModeCluster && c.CA.CertificateFile == "":
		return bad("ca-cert", "", "name the file with the cluster's CA certificate, which --ca-mode=cluster needs")
	case c.CA.Mode == authority.ModeCluster && c.CA.KeyFile == "":
		return bad("ca-key", "", "name the file with the cluster's CA key, which --ca-mode=cluster needs")
	}
	return nil
}
