// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package plan

import (
	"encoding/json"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	"github.com/sealane/sealane/test/lab/internal/build"
	"github.com/sealane/sealane/test/lab/internal/image"
	"github.com/sealane/sealane/test/lab/internal/pki"
)

// object is a piece of JSON, which is YAML too.
type object = map[string]any

// Server is the URL of the API server.
func (o Options) Server() string {
	return "https://" + net.JoinHostPort(o.Families.NodeAddresses(1)[0].String(), "6443")
}

// APIServerLeaf describes the API server's certificate.
func (o Options) APIServerLeaf() pki.Leaf {
	const service = "kubernetes.default"
	ips := append(host(o.Families.Services(), apiHost), o.Families.NodeAddresses(1)...)
	return pki.Leaf{
		Name: "kube-apiserver", Server: true,
		DNS: []string{"kubernetes", service, service + ".svc", service + ".svc.cluster.local", "localhost"},
		IPs: append(ips, netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()),
	}
}

// ContainerdConfig is for every node alike.
const ContainerdConfig = `version = 3

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = '` + image.Pause + `'

[plugins.'io.containerd.cri.v1.runtime']
# Root may lack CAP_SYS_RESOURCE, and then cannot lower a score.
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
`

// KubeletConfig is the configuration file of every kubelet.
func (o Options) KubeletConfig() (string, error) {
	return marshal(object{
		"apiVersion":               "kubelet.config.k8s.io/v1beta1",
		"kind":                     "KubeletConfiguration",
		"address":                  o.Families.anyAddress(),
		"containerRuntimeEndpoint": "unix:///run/containerd/containerd.sock",
		"authentication": object{
			"x509":    object{"clientCAFile": pkiD + "/ca.crt"},
			"webhook": object{"enabled": true}, "anonymous": object{"enabled": false},
		},
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
		"evictionHard": object{
			"memory.available": "100Mi", "nodefs.available": "0%",
			"nodefs.inodesFree": "0%", "imagefs.available": "0%", "imagefs.inodesFree": "0%",
		},
	})
}

// ProxyConfig is that of every kube-proxy.
func (o Options) ProxyConfig() (string, error) {
	return marshal(object{
		"apiVersion":       "kubeproxy.config.k8s.io/v1alpha1",
		"kind":             "KubeProxyConfiguration",
		"mode":             o.Proxy,
		"clusterCIDR":      Join(o.Families.Pods()),
		"clientConnection": object{"kubeconfig": conf + "/kube-proxy.conf"},
		// The limit belongs to the real machine, a node can only read it.
		"conntrack": object{"maxPerCore": 0, "min": 0},
	})
}

// FlannelConfig is that of every flannel.
func (o Options) FlannelConfig() (string, error) {
	c := object{"Backend": object{"Type": "vxlan"}, "EnableNFTables": o.Proxy != "iptables"}
	for _, prefix := range o.Families.Pods() {
		if prefix.Addr().Is4() {
			c["Network"] = prefix
		} else {
			c["EnableIPv6"], c["IPv6Network"] = true, prefix
		}
	}
	if o.Families == IPv6 {
		c["EnableIPv4"] = false
	}
	return marshal(c)
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
`, build.Kubernetes, strings.TrimPrefix(o.Server(), "https://"), Join(o.Families.Pods()), Join(o.Families.Services()))
}

// FlannelMTU finds the MTU in the file that flannel writes when it is ready.
func FlannelMTU(env string) (int, error) {
	for line := range strings.Lines(env) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "FLANNEL_MTU="); ok {
			return strconv.Atoi(value)
		}
	}
	return 0, fmt.Errorf("no FLANNEL_MTU in %q", env)
}

// BridgeConfig is a CNI configuration: a bridge per node, addresses from the node's pod ranges.
func BridgeConfig(podCIDRs []string, mtu int) (string, error) {
	var ranges [][]object
	var routes []object
	for _, text := range podCIDRs {
		prefix, err := netip.ParsePrefix(text)
		if err != nil {
			return "", err
		}
		ranges = append(ranges, []object{{"subnet": prefix}})
		routes = append(routes, object{"dst": anywhere(prefix.Addr())})
	}
	return marshal(object{"cniVersion": "1.0.0", "name": "flannel", "plugins": []object{
		{
			"type": "bridge", "bridge": "cni0", "isGateway": true, "hairpinMode": true, "mtu": mtu,
			"ipam": object{"type": "host-local", "ranges": ranges, "routes": routes},
		},
		{"type": "portmap", "capabilities": object{"portMappings": true}},
	}})
}

func marshal(v any) (string, error) {
	text, err := json.MarshalIndent(v, "", "  ")
	return string(text), err
}
