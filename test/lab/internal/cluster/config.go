// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"errors"
	"os"
	"path/filepath"

	"github.com/sealane/sealane/test/lab/internal/pki"
	"github.com/sealane/sealane/test/lab/internal/plan"
)

const (
	caName         = "ca"
	frontProxyName = "front-proxy-ca"
	adminConf      = "admin.conf"
)

// makePKI makes what belongs to the cluster as a whole, under the names that kubeadm gives it.
func (l *Lab) makePKI(o plan.Options) error {
	dir := l.paths.PKI()
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
		issue(ca, dir, "apiserver", o.APIServerLeaf()),
		issue(ca, dir, "apiserver-kubelet-client", pki.Leaf{Name: "kube-apiserver-kubelet-client"}),
		issue(front, dir, "front-proxy-client", pki.Leaf{Name: "front-proxy-client"}),
		l.login(o, dir, adminConf, pki.Leaf{Name: "kubernetes-admin", Groups: []string{"system:masters"}}),
	)
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
func (l *Lab) login(o plan.Options, dir, file string, leaf pki.Leaf) error {
	ca, err := pki.Load(l.paths.PKI(), caName)
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
	text, err := pki.Kubeconfig(o.Server(), own.Cert, pair)
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(dir, file), text, 0o600)
}

// configure writes what a node's daemons read: dir becomes the node's /etc/kubernetes.
func (l *Lab) configure(o plan.Options, n plan.Node, dir string) error {
	own := filepath.Join(dir, "pki")
	if err := os.MkdirAll(own, 0o755); err != nil {
		return err
	}
	ca, err := pki.Load(l.paths.PKI(), caName)
	if err != nil {
		return err
	}
	identity := pki.Leaf{Name: "system:node:" + n.Name, Groups: []string{"system:nodes"}}
	serving := identity
	serving.Server, serving.DNS, serving.IPs = true, []string{n.Name}, o.Families.NodeAddresses(n.Index)
	return errors.Join(
		l.copyPKI(n, own),
		issue(ca, own, "kubelet", serving),
		l.login(o, dir, "kubelet.conf", identity),
		l.login(o, dir, "kube-proxy.conf", pki.Leaf{Name: "system:kube-proxy"}),
		l.login(o, dir, "flannel.conf", pki.Leaf{Name: "flannel"}),
		l.controlPlaneLogins(o, n, dir),
		writeConfigs(o, dir),
	)
}

// writeConfigs writes the daemons' configuration files.
func writeConfigs(o plan.Options, dir string) error {
	for file, text := range map[string]func() (string, error){
		"containerd.toml": func() (string, error) { return plan.ContainerdConfig, nil },
		"kubelet.yaml":    o.KubeletConfig,
		"kube-proxy.yaml": o.ProxyConfig,
		"flannel.json":    o.FlannelConfig,
	} {
		content, err := text()
		if err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, file), []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// copyPKI gives every node the cluster's CA certificate, and the control plane's node all the rest, as kubeadm does.
func (l *Lab) copyPKI(n plan.Node, dir string) error {
	names := []string{"ca.crt"}
	if n.Control() {
		all, err := os.ReadDir(l.paths.PKI())
		if err != nil {
			return err
		}
		names = nil
		for _, file := range all {
			names = append(names, file.Name())
		}
	}
	for _, name := range names {
		text, err := os.ReadFile(filepath.Join(l.paths.PKI(), name))
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

func (l *Lab) controlPlaneLogins(o plan.Options, n plan.Node, dir string) error {
	if !n.Control() {
		return nil
	}
	return errors.Join(
		l.login(o, dir, "controller-manager.conf", pki.Leaf{Name: "system:kube-controller-manager"}),
		l.login(o, dir, "scheduler.conf", pki.Leaf{Name: "system:kube-scheduler"}),
	)
}
