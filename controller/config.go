// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package controller

import (
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"time"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/keymgr/ca"
)

// ErrConfig says that a setting cannot be used; the text names flag, value and
// remedy.
var ErrConfig = errors.New("bad configuration")

// CAMode says whose root vouches for the nodes.
type CAMode string

// The modes.
const (
	// CASelf is a root that the controller makes itself and keeps in a Secret.
	CASelf CAMode = "self"
	// CASecret is a root that the operator has put into a Secret.
	CASecret CAMode = "secret"
	// CACluster is the Kubernetes cluster's own CA, in files of a control-plane
	// node.
	CACluster CAMode = "cluster"
)

// Names of objects in Sealane's namespace.
const (
	// StoreSecret is the Secret in which the controller keeps the intermediate
	// that it made, with its key.
	StoreSecret = "sealane-ca"
	// RootSecret is the Secret in which it keeps the root that it made, with
	// CASelf, apart from all else, so that its key can be taken away.
	RootSecret = kube.RootSecret
	// AgentDaemonSet is the DaemonSet whose pods may ask for certificates.
	AgentDaemonSet = "sealane-agent"
	// leaseName is the Lease of the election.
	leaseName = "sealane-controller"
)

// Keys of the Secret that the operator hands in.
const (
	// SecretRootCertificate holds the root, as in a Secret of type
	// kubernetes.io/tls; further certificates in it are trusted as well.
	SecretRootCertificate = "tls.crt"
	// SecretRootKey holds the root's private key; without it the two below are
	// needed.
	SecretRootKey = "tls.key"
	// SecretIntermediateCertificate and SecretIntermediateKey hold the issuing
	// intermediate, for a root whose key stays elsewhere.
	SecretIntermediateCertificate = "intermediate.crt"
	SecretIntermediateKey         = "intermediate.key"
)

// Config is what the controller is told by its command line.
type Config struct {
	Kubeconfig          string
	APIServer           string
	Namespace           string
	Identity            string // of this candidate in the election
	CAMode              CAMode
	CASecret            string
	CACertificateFile   string
	CAKeyFile           string
	CertificateLifetime time.Duration
	// RootLifetime and IntermediateLifetime are of what the controller makes.
	RootLifetime         time.Duration
	IntermediateLifetime time.Duration
	MaxPerHour           int // certificates for one node
	MetricsAddress       string
	LogLevel             slog.Level
}

// Register puts the flags on fs. Values are stored when fs is parsed; call
// [Config.Validate] after that.
func (c *Config) Register(fs *flag.FlagSet) {
	fs.StringVar(&c.Kubeconfig, "kubeconfig", "", "kubeconfig file; empty: the pod's ServiceAccount")
	fs.StringVar(&c.APIServer, "api-server", "", "the API server's own address (https://host:port), so that no kube-proxy is needed; empty: as the pod or kubeconfig says")
	fs.StringVar(&c.Namespace, "namespace", kube.DefaultNamespace, "namespace that Sealane runs in")
	fs.StringVar(&c.Identity, "identity", "", "name of this candidate in the election of a leader; empty: the host's name")
	c.CAMode = CASelf
	fs.Func("ca-mode", "root of all node certificates: self, secret or cluster (default self)", func(s string) error {
		c.CAMode = CAMode(s)
		return nil
	})
	fs.StringVar(&c.CASecret, "ca-secret", "", "Secret with the root (tls.crt, tls.key), for --ca-mode=secret")
	fs.StringVar(&c.CACertificateFile, "ca-cert", "", "file with the cluster's CA certificate, for --ca-mode=cluster")
	fs.StringVar(&c.CAKeyFile, "ca-key", "", "file with the cluster's CA key, for --ca-mode=cluster")
	fs.DurationVar(&c.CertificateLifetime, "certificate-lifetime", ca.DefaultLeafLifetime, "longest lifetime of node certificates, 10m to 168h")
	fs.DurationVar(&c.RootLifetime, "root-lifetime", ca.DefaultRootLifetime, "lifetime of a root that the controller makes; replaced at 80 percent of it; at least 2 times the intermediate's")
	fs.DurationVar(&c.IntermediateLifetime, "intermediate-lifetime", ca.DefaultIntermediateLifetime, "lifetime of the issuing intermediate, renewed at two thirds of it; at least 3 times --certificate-lifetime")
	fs.IntVar(&c.MaxPerHour, "max-certificates-per-hour", 0, "how many certificates one node gets within an hour; 0: 10, or 5 within --certificate-lifetime if that is more")
	fs.StringVar(&c.MetricsAddress, "metrics-address", ":9755", "address of /metrics, /crl, /healthz and /readyz")
	fs.TextVar(&c.LogLevel, "log-level", slog.LevelInfo, "debug, info, warn or error")
}

// bad names a flag that cannot be used, its value and the remedy.
func bad(flag string, value any, remedy string) error {
	return fmt.Errorf("%w: --%s=%v: %s", ErrConfig, flag, value, remedy)
}

// Validate checks what no single flag can and fills in the host's name.
func (c *Config) Validate() error {
	if err := c.validateCA(); err != nil {
		return err
	}
	switch {
	case c.CertificateLifetime < ca.MinLifetime || c.CertificateLifetime > kube.MaxValidity:
		return bad("certificate-lifetime", c.CertificateLifetime, fmt.Sprintf("use %v to %v", ca.MinLifetime, kube.MaxValidity))
	case c.IntermediateLifetime < ca.LeavesPerIntermediate*c.CertificateLifetime:
		return bad("intermediate-lifetime", c.IntermediateLifetime, fmt.Sprintf("use at least %d times --certificate-lifetime, %v",
			ca.LeavesPerIntermediate, ca.LeavesPerIntermediate*c.CertificateLifetime))
	case c.RootLifetime < ca.IntermediatesPerRoot*c.IntermediateLifetime:
		return bad("root-lifetime", c.RootLifetime, fmt.Sprintf("use at least %d times --intermediate-lifetime, %v",
			ca.IntermediatesPerRoot, ca.IntermediatesPerRoot*c.IntermediateLifetime))
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

// validateCA checks the mode of the CA with what each mode needs.
func (c *Config) validateCA() error {
	switch c.CAMode {
	case CASelf, CASecret, CACluster:
	default:
		return bad("ca-mode", c.CAMode, "use self, secret or cluster")
	}
	switch files := c.CACertificateFile + c.CAKeyFile; {
	case c.CAMode == CASecret && c.CASecret == "":
		return bad("ca-secret", c.CASecret, "name the Secret with the root, which --ca-mode=secret needs")
	case c.CAMode == CASecret && slices.Contains([]string{StoreSecret, RootSecret}, c.CASecret):
		return bad("ca-secret", c.CASecret, "use another name, the controller keeps its own keys in this one")
	case c.CAMode != CASecret && c.CASecret != "":
		return bad("ca-secret", c.CASecret, "only --ca-mode=secret uses it")
	case c.CAMode != CACluster && files != "":
		return bad("ca-cert", c.CACertificateFile, "only --ca-mode=cluster uses --ca-cert and --ca-key")
	case c.CAMode == CACluster && c.CACertificateFile == "":
		return bad("ca-cert", "", "name the file with the cluster's CA certificate, which --ca-mode=cluster needs")
	case c.CAMode == CACluster && c.CAKeyFile == "":
		return bad("ca-key", "", "name the file with the cluster's CA key, which --ca-mode=cluster needs")
	}
	return nil
}
