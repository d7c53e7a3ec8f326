// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"github.com/sealane/sealane/test/lab/internal/build"
	"github.com/sealane/sealane/test/lab/internal/image"
	"github.com/sealane/sealane/test/lab/internal/pki"
)

const (
	caName         = "ca"
	frontProxyName = "front-proxy-ca"
	adminConf      = "admin.conf"
)

// object is a piece of JSON, which is YAML too.
type object = map[string]any

// server is the URL of the API server.
func (o Options) server() string {
	return "https://" + net.JoinHostPort(o.Families.nodeAddresses(1)[0].String(), "6443")
}

// makePKI makes what belongs to the cluster as a whole, under the names that kubeadm gives it.
func (l *Lab) makePKI(o Options) error {
	dir := l.places.PKI()
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	ca, err := newAuthority(dir, caName, "kubernetes")
	if err != nil {
		return err
	}
	front, err := newAuthority(dir, frontProxyName, "front-proxy-ca")
	if err != nil {
		return err
	}
	private, public, err := pki.SigningKey()
	if err != nil {
		return err
	}
	return errors.Join(
		os.WriteFile(filepath.Join(dir, "sa.key"), private, 0o600),
		os.WriteFile(filepath.Join(dir, "sa.pub"), public, 0o644),
		issue(ca, dir, "apiserver", o.apiServerLeaf()),
		issue(ca, dir, "apiserver-kubelet-client", pki.Leaf{Name: "kube-apiserver-kubelet-client"}),
		issue(front, dir, "front-proxy-client", pki.Leaf{Name: "front-proxy-client"}),
		l.login(o, dir, adminConf, pki.Leaf{Name: "kubernetes-admin", Groups: []string{"system:masters"}}),
	)
}

func (o Options) apiServerLeaf() pki.Leaf {
	const service = "kubernetes.default"
	ips := append(host(o.Families.services(), apiHost), o.Families.nodeAddresses(1)...)
	return pki.Leaf{
		Name: "kube-apiserver", Server: true,
		DNS: []string{"kubernetes", service, service + ".svc", service + ".svc.cluster.local", "localhost"},
		IPs: append(ips, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()),
	}
}

func newAuthority(dir, name, subject string) (*pki.Authority, error) {
	a, err := pki.NewAuthority(subject)
	if err != nil {
		return nil, err
	}
	pair, err := a.PEM()
	if err != nil {
		return nil, err
	}
	return a, pair.Write(dir, name)
}

func issue(a *pki.Authority, dir, name string, leaf pki.Leaf) error {
	pair, err := a.Issue(leaf)
	if err != nil {
		return err
	}
	return pair.Write(dir, name)
}

// login writes a kubeconfig for a user of the cluster.
func (l *Lab) login(o Options, dir, file string, leaf pki.Leaf) error {
	ca, err := pki.Load(l.places.PKI(), caName)
	if err != nil {
		return err
	}
	pair, err := ca.Issue(leaf)
	if err != nil {
		return err
	}
	own, err := ca.PEM()
	if err != nil {
		return err
	}
	text, err := pki.Kubeconfig(o.server(), own.Cert, pair)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), text, 0o600)
}

// configure writes what a node's daemons read: dir becomes the node's /etc/kubernetes.
func (l *Lab) configure(o Options, n node, dir string) error {
	own := filepath.Join(dir, "pki")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	ca, err := pki.Load(l.places.PKI(), caName)
	if err != nil {
		return err
	}
	identity := pki.Leaf{Name: "system:node:" + n.Name, Groups: []string{"system:nodes"}}
	serving := identity
	serving.Server, serving.DNS, serving.IPs = true, []string{n.Name}, o.Families.nodeAddresses(n.Index)
	return errors.Join(
		l.copyPKI(n, own),
		issue(ca, own, "kubelet", serving),
		l.login(o, dir, "kubelet.conf", identity),
		l.login(o, dir, "kube-proxy.conf", pki.Leaf{Name: "system:kube-proxy"}),
		l.login(o, dir, "flannel.conf", pki.Leaf{Name: "flannel"}),
		l.controlPlaneLogins(o, n, dir),
		os.WriteFile(filepath.Join(dir, "containerd.toml"), []byte(containerdConfig), 0o644),
		writeJSON(filepath.Join(dir, "kubelet.yaml"), o.kubeletConfig()),
		writeJSON(filepath.Join(dir, "kube-proxy.yaml"), o.proxyConfig()),
		writeJSON(filepath.Join(dir, "flannel.json"), o.flannelConfig()),
	)
}

// copyPKI gives every node the cluster's CA certificate, and the control plane's node all the rest, as kubeadm does.
func (l *Lab) copyPKI(n node, dir string) error {
	names := []string{"ca.crt"}
	if n.control() {
		all, err := os.ReadDir(l.places.PKI())
		if err != nil {
			return err
		}
		names = nil
		for _, file := range all {
			names = append(names, file.Name())
		}
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(l.places.PKI(), name))
		if err != nil {
			return err
		}
		mode := os.FileMode(0o644)
		if ext := filepath.Ext(name); ext == ".key" || ext == ".conf" {
			mode = 0o600
		}
		target := filepath.Join(dir, name)
		if name == adminConf {
			target = filepath.Join(filepath.Dir(dir), name)
		}
		if err := os.WriteFile(target, text, mode); err != nil {
			return err
		}
	}
	return nil
}

func (l *Lab) controlPlaneLogins(o Options, n node, dir string) error {
	if !n.control() {
		return nil
	}
	return errors.Join(
		l.login(o, dir, "controller-manager.conf", pki.Leaf{Name: "system:kube-controller-manager"}),
		l.login(o, dir, "scheduler.conf", pki.Leaf{Name: "system:kube-scheduler"}),
	)
}

const containerdConfig = `version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '` + image.Pause + `'

[plugins.'io.containerd.cri.v1.runtime']
# Root may lack CAP_SYS_RESOURCE, and then cannot lower a score.
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
`

func (o Options) kubeletConfig() object {
	return object{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  o.Families.anyAddress(),
		"containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
		"authentication": object{"x509": object{"clientCAFile": pkiD + "/ca.crt"},
			"webhook": object{"enabled": true}, "anonymous": object{"enabled": false}},
		"authorization":     object{"mode": "Webhook"},
		"tlsCertFile":       pkiD + "/kubelet.crt",
		"tlsPrivateKeyFile": pkiD + "/kubelet.key",
		"cgroupDriver":      "cgroupfs",
		"failCgroupV1":      false,
		"failSwapOn":        false,
		"clusterDNS":        []string{o.Families.dns().String()},
		"clusterDomain":     "cluster.local",
		"resolvConf":        "/etc/resolv.conf",
		// The disk is the real machine's: how full it is must not evict pods.
		"imageGCHighThresholdPercent": 100,
		"evictionHard": object{"memory.available": "100Mi", "nodefs.available": "0%",
			"nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%"},
	}
}

func (o Options) proxyConfig() object {
	return object{
		"apiVersion":       "kubeproxy.config.k8s.io/v1alpha1",
		"kind":             "KubeProxyConfiguration",
		"mode":             o.Proxy,
		"clusterCIDR":      join(o.Families.pods()),
		"clientConnection": object{"kubeconfig": conf + "/kube-proxy.conf"},
		// The limit belongs to the real machine, a node can only read it.
		"conntrack": object{"maxPerCore": 0, "min": 0},
	}
}

func (o Options) flannelConfig() object {
	c := object{"Backend": object{"Type": "vxlan"}, "EnableNFTables": o.Proxy != "iptables"}
	for _, prefix := range o.Families.pods() {
		if prefix.Addr().Is4() {
			c["Network"] = prefix
		} else {
			c["EnableIPv6"], c["IPv6Network"] = true, prefix
		}
	}
	if o.Families == IPv6 {
		c["EnableIPv4"] = false
	}
	return c
}

// kubeadmConfig is the document that kubeadm leaves in the cluster and that others read the pod ranges from.
func (o Options) kubeadmConfig() string {
	return fmt.Sprintf(`apiVersion: kubeadm.k8s.io/v1beta4
kind: ClusterConfiguration
clusterName: kubernetes
kubernetesVersion: %s
controlPlaneEndpoint: %q
networking:
  dnsDomain: cluster.local
  podSubnet: %s
  serviceSubnet: %s
`, build.Kubernetes, strings.TrimPrefix(o.server(), "https://"), join(o.Families.pods()), join(o.Families.services()))
}
