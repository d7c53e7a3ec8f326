// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package plan

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealane/sealane/test/lab/internal/build"
)

// The daemons of a node.
const (
	Etcd              = "etcd"
	APIServer         = "kube-apiserver"
	ControllerManager = "kube-controller-manager"
	Scheduler         = "kube-scheduler"
	Containerd        = "containerd"
	Kubelet           = "kubelet"
	KubeProxy         = "kube-proxy"
	Flannel           = "flannel"
)

// Daemons lists every daemon, those of the control plane first.
func Daemons() []string {
	return []string{Etcd, APIServer, ControllerManager, Scheduler, Containerd, Kubelet, KubeProxy, Flannel}
}

const (
	conf = "/etc/kubernetes"
	pkiD = conf + "/pki"
)

// Arguments returns the command line of a daemon on a node.
func (o Options) Arguments(daemon string, n Node) ([]string, error) {
	switch daemon {
	case Etcd:
		// Its data is thrown away with the lab: no need to wait for the disk.
		return []string{Etcd, "--data-dir=/var/lib/etcd", "--unsafe-no-fsync", "--quota-backend-bytes=4294967296"}, nil
	case APIServer:
		return o.apiServer(n), nil
	case ControllerManager:
		return o.controllerManager(), nil
	case Scheduler:
		return append([]string{Scheduler, "--leader-elect=false"}, kubeconfigFlags("scheduler")...), nil
	case Containerd:
		return []string{Containerd, "--config=" + conf + "/containerd.toml"}, nil
	case Kubelet:
		return []string{
			Kubelet, "--config=" + conf + "/kubelet.yaml", "--kubeconfig=" + conf + "/kubelet.conf",
			"--hostname-override=" + n.Name, "--node-ip=" + Join(o.Families.NodeAddresses(n.Index)),
		}, nil
	case KubeProxy:
		return []string{KubeProxy, "--config=" + conf + "/kube-proxy.yaml", "--hostname-override=" + n.Name}, nil
	case Flannel:
		return o.flannel(n), nil
	}
	return nil, fmt.Errorf("%w: %q: want one of %s", ErrDaemon, daemon, strings.Join(Daemons(), ", "))
}

func (o Options) apiServer(n Node) []string {
	return []string{
		APIServer,
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + o.Families.NodeAddresses(n.Index)[0].String(),
		"--bind-address=" + o.Families.anyAddress(),
		"--secure-port=6443",
		"--service-cluster-ip-range=" + Join(o.Families.Services()),
		"--allow-privileged",
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--client-ca-file=" + pkiD + "/ca.crt",
		"--tls-cert-file=" + pkiD + "/apiserver.crt",
		"--tls-private-key-file=" + pkiD + "/apiserver.key",
		"--kubelet-client-certificate=" + pkiD + "/apiserver-kubelet-client.crt",
		"--kubelet-client-key=" + pkiD + "/apiserver-kubelet-client.key",
		"--kubelet-certificate-authority=" + pkiD + "/ca.crt",
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc.cluster.local",
		"--service-account-key-file=" + pkiD + "/sa.pub",
		"--service-account-signing-key-file=" + pkiD + "/sa.key",
		"--requestheader-client-ca-file=" + pkiD + "/front-proxy-ca.crt",
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + pkiD + "/front-proxy-client.crt",
		"--proxy-client-key-file=" + pkiD + "/front-proxy-client.key",
	}
}

func (o Options) controllerManager() []string {
	return append([]string{
		ControllerManager,
		"--leader-elect=false",
		"--allocate-node-cidrs",
		"--cluster-cidr=" + Join(o.Families.Pods()),
		"--service-cluster-ip-range=" + Join(o.Families.Services()),
		"--use-service-account-credentials",
		"--root-ca-file=" + pkiD + "/ca.crt",
		"--cluster-signing-cert-file=" + pkiD + "/ca.crt",
		"--cluster-signing-key-file=" + pkiD + "/ca.key",
		"--service-account-private-key-file=" + pkiD + "/sa.key",
	}, kubeconfigFlags("controller-manager")...)
}

func kubeconfigFlags(name string) []string {
	file := conf + "/" + name + ".conf"
	return []string{"--kubeconfig=" + file, "--authentication-kubeconfig=" + file, "--authorization-kubeconfig=" + file}
}

func (o Options) flannel(n Node) []string {
	return []string{
		"env", "NODE_NAME=" + n.Name, Flannel, "--kube-subnet-mgr", "--ip-masq", "--iface=eth0",
		"--kubeconfig-file=" + conf + "/flannel.conf", "--net-config-path=" + conf + "/flannel.json",
	}
}

// Daemons lists what runs on a node from the beginning, in starting order, but flannel, which waits for its node's pod range.
func (o Options) Daemons(n Node) []string {
	var all []string
	if n.Control() {
		all = append(all, Etcd, APIServer, ControllerManager, Scheduler)
	}
	all = append(all, Containerd, Kubelet)
	if o.Proxy != "none" {
		all = append(all, KubeProxy)
	}
	return all
}

// targets lists what must be built to run a cluster with these options.
func (o Options) targets() []string {
	need := []string{"kubernetes", "containerd", "runc", "plugins", "etcd"}
	if o.CNI == Flannel {
		need = append(need, "flannel")
	}
	return need
}

// Plugins lists the CNI plugins that a node has before anybody installs one. The runtime itself uses loopback.
func (o Options) Plugins() []string {
	if o.CNI == Flannel {
		return []string{"loopback", "bridge", "host-local", "portmap"}
	}
	return []string{"loopback"}
}

// Targets lists everything that "up" would build with these options.
func (o Options) Targets() ([]build.Target, error) {
	need := o.targets()
	slices.Sort(need)
	return build.Find(need...)
}

// SearchPath is PATH on a node. The directory of the lab's programs is /opt/lab there.
func (o Options) SearchPath() (string, error) {
	targets, err := o.Targets()
	if err != nil {
		return "", err
	}
	path := ""
	for _, t := range targets {
		path += "/opt/lab/" + t.Key() + ":"
	}
	return path + "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", nil
}
