// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"fmt"
	"slices"
	"strings"

	"github.com/sealane/sealane/test/lab/internal/build"
)

// The daemons of a node.
const (
	etcd              = "etcd"
	apiServer         = "kube-apiserver"
	controllerManager = "kube-controller-manager"
	scheduler         = "kube-scheduler"
	containerd        = "containerd"
	kubelet           = "kubelet"
	kubeProxy         = "kube-proxy"
	flannel           = "flannel"
)

// Daemons lists every daemon, those of the control plane first.
func Daemons() []string {
	return []string{etcd, apiServer, controllerManager, scheduler, containerd, kubelet, kubeProxy, flannel}
}

const (
	conf = "/etc/kubernetes"
	pkiD = conf + "/pki"
)

// arguments returns the command line of a daemon on a node.
func (o Options) arguments(daemon string, n node) ([]string, error) {
	switch daemon {
	case etcd:
		// Its data is thrown away with the lab: no need to wait for the disk.
		return []string{etcd, "--data-dir=/var/lib/etcd", "--unsafe-no-fsync", "--quota-backend-bytes=4294967296"}, nil
	case apiServer:
		return o.apiServer(n), nil
	case controllerManager:
		return o.controllerManager(), nil
	case scheduler:
		return append([]string{scheduler, "--leader-elect=false"}, kubeconfigFlags("scheduler")...), nil
	case containerd:
		return []string{containerd, "--config=" + conf + "/containerd.toml"}, nil
	case kubelet:
		return []string{kubelet, "--config=" + conf + "/kubelet.yaml", "--kubeconfig=" + conf + "/kubelet.conf",
			"--hostname-override=" + n.Name, "--node-ip=" + join(o.Families.nodeAddresses(n.Index))}, nil
	case kubeProxy:
		return []string{kubeProxy, "--config=" + conf + "/kube-proxy.yaml", "--hostname-override=" + n.Name}, nil
	case flannel:
		return o.flannel(n), nil
	}
	return nil, fmt.Errorf("%w: %q: want one of %s", ErrDaemon, daemon, strings.Join(Daemons(), ", "))
}

func (o Options) apiServer(n node) []string {
	return []string{apiServer,
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + o.Families.nodeAddresses(n.Index)[0].String(),
		"--bind-address=" + o.Families.anyAddress(),
		"--secure-port=6443",
		"--service-cluster-ip-range=" + join(o.Families.services()),
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
	return append([]string{controllerManager,
		"--leader-elect=false",
		"--allocate-node-cidrs",
		"--cluster-cidr=" + join(o.Families.pods()),
		"--service-cluster-ip-range=" + join(o.Families.services()),
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

func (o Options) flannel(n node) []string {
	return []string{"env", "NODE_NAME=" + n.Name, flannel, "--kube-subnet-mgr", "--ip-masq", "--iface=eth0",
		"--kubeconfig-file=" + conf + "/flannel.conf", "--net-config-path=" + conf + "/flannel.json"}
}

// daemons lists what runs on a node from the beginning, in starting order, but flannel, which waits for its node's pod range.
func (o Options) daemons(n node) []string {
	var all []string
	if n.control() {
		all = append(all, etcd, apiServer, controllerManager, scheduler)
	}
	all = append(all, containerd, kubelet)
	if o.Proxy != "none" {
		all = append(all, kubeProxy)
	}
	return all
}

// targets lists what must be built to run a cluster with these options.
func (o Options) targets() []string {
	need := []string{"kubernetes", "containerd", "runc", "plugins", "etcd"}
	if o.CNI == flannel {
		need = append(need, "flannel")
	}
	return need
}

// plugins lists the CNI plugins that a node has before anybody installs one. The runtime itself uses loopback.
func (o Options) plugins() []string {
	if o.CNI == flannel {
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
