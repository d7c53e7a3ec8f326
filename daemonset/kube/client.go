// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/url"
	"strings"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"github.com/sealane/sealane/daemonset/kube/internal/conn"
	"github.com/sealane/sealane/keymgr/approval"
)

// Names in the cluster that are part of Sealane's contract.
const (
	// DefaultNamespace is where Sealane's own objects live unless it was
	// installed elsewhere.
	DefaultNamespace = "sealane-system"
	// RootSecret is the name of the Secret with the root that the controller made.
	RootSecret = "sealane-ca-root"
	// AgentServiceAccount is the ServiceAccount of the node agents.
	AgentServiceAccount = "sealane-agent"
	// SignerName is the signer that node certificates are requested from.
	SignerName = approval.SignerName
)

// Limits on this process's own requests. The default of client-go (5/s) makes
// a controller that signs for a whole new cluster the bottleneck.
const (
	requestsPerSecond = 100
	requestBurst      = 200
)

// Paths at which the kubelet mounts a pod's credentials.
const (
	tokenFile = "/var/run/secrets/kubernetes.io/serviceaccount/token"
	caFile    = "/var/run/secrets/kubernetes.io/serviceaccount/ca.crt"
)

// Config says how to reach the API server and in whose name.
type Config struct {
	// Kubeconfig is the path of a kubeconfig file; empty means the
	// credentials that the kubelet mounts into a pod.
	Kubeconfig string
	// APIServer is the API server's own address, "https://host:port" or
	// "host:port"; empty means what Kubeconfig or the pod's environment says.
	// With it no Service, hence no kube-proxy, is needed.
	APIServer string
	// UserAgent is sent with each request and names the component in Events;
	// empty means "sealane".
	UserAgent string
	// EventHost is the node that Events come from; empty means none.
	EventHost string
	// Namespace is Sealane's own; empty means DefaultNamespace.
	Namespace string
	// Logger gets what client-go has to say; nil means to drop it.
	Logger *slog.Logger
}

// Client talks to one API server. It is safe for concurrent use.
type Client struct {
	conn   conn.Conn
	events *eventRecorder
}

// NewClient makes a Client. It reads the credentials but does not connect.
func NewClient(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	base, err := cfg.rest()
	if err != nil {
		return nil, err
	}
	return connect(base, cfg)
}

func connect(base *rest.Config, cfg Config) (*Client, error) {
	base.UserAgent = cfg.UserAgent
	base.QPS, base.Burst = requestsPerSecond, requestBurst
	made, err := conn.Open(base)
	if err != nil {
		return nil, err
	}
	return New(made, cfg), nil
}

// New makes a Client of a connection that is there: in tests, that to a fake server.
func New(c conn.Conn, cfg Config) *Client {
	cfg = cfg.withDefaults()
	c.Namespace, c.Log = cfg.Namespace, cfg.Logger
	return &Client{conn: c, events: newEventRecorder(c.Core, cfg)}
}

// Connection returns what the packages below this one need in order to ask on their own.
func (c *Client) Connection() conn.Conn { return c.conn }

// Close ends the sending of Events. Watches end with their contexts.
func (c *Client) Close() { c.events.close() }

// Namespace returns the namespace of Sealane's own objects.
func (c *Client) Namespace() string { return c.conn.Namespace }

func (cfg Config) withDefaults() Config {
	if cfg.UserAgent == "" {
		cfg.UserAgent = "sealane"
	}
	if cfg.Namespace == "" {
		cfg.Namespace = DefaultNamespace
	}
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	return cfg
}

func (cfg Config) rest() (*rest.Config, error) {
	host, err := parseAPIServer(cfg.APIServer)
	if err != nil {
		return nil, err
	}
	switch {
	case cfg.Kubeconfig != "":
		out, err := clientcmd.BuildConfigFromFlags("", cfg.Kubeconfig)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig %s: %w", cfg.Kubeconfig, err)
		}
		if host != "" {
			out.Host = host
		}
		return out, nil
	case host != "":
		return &rest.Config{
			Host: host, BearerTokenFile: tokenFile,
			TLSClientConfig: rest.TLSClientConfig{CAFile: caFile},
		}, nil
	}
	out, err := rest.InClusterConfig()
	if errors.Is(err, rest.ErrNotInCluster) {
		return nil, fmt.Errorf("%w: not in a pod and no kubeconfig given; set the kubeconfig or the api server", ErrBadConfig)
	}
	if err != nil {
		return nil, fmt.Errorf("read the pod's credentials: %w", err)
	}
	return out, nil
}

// parseAPIServer turns an address as people write it into a URL. Plain HTTP is
// refused: the token would travel in the clear.
func parseAPIServer(text string) (string, error) {
	if text == "" {
		return "", nil
	}
	bad := func(why string) error {
		return fmt.Errorf("%w: api server %q: %s; write https://host:port", ErrBadConfig, text, why)
	}
	if !strings.Contains(text, "://") {
		text = "https://" + text
	}
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return "", bad(err.Error())
	case u.Scheme != "https":
		return "", bad("scheme is " + u.Scheme)
	case u.Hostname() == "":
		return "", bad("no host")
	case u.User != nil || u.RawQuery != "" || u.Fragment != "":
		return "", bad("has more than scheme, host, port and path")
	}
	if u.Port() == "" {
		u.Host = net.JoinHostPort(u.Hostname(), "443")
	}
	return u.String(), nil
}
