// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"sigs.k8s.io/yaml"
)

const (
	kubeadmConfigMap = "kubeadm-config"
	kubeadmKey       = "ClusterConfiguration"
)

// TrustDomain returns what distinguishes this cluster from all others: the UID of the
// namespace kube-system.
func (c *Client) TrustDomain(ctx context.Context) (string, error) {
	ns, err := c.conn.Core.CoreV1().Namespaces().Get(ctx, metav1.NamespaceSystem, metav1.GetOptions{})
	if err != nil {
		return "", Wrap("read namespace "+metav1.NamespaceSystem, err)
	}
	return string(ns.UID), nil
}

// Networks are the address ranges that a cluster was set up with; empty means unknown.
type Networks struct{ PodCIDRs, ServiceCIDRs []netip.Prefix }

// ClusterNetworks returns the ranges that kubeadm set the cluster up with, or none if
// another tool did.
func (c *Client) ClusterNetworks(ctx context.Context) (Networks, error) {
	where := "configmap " + metav1.NamespaceSystem + "/" + kubeadmConfigMap
	cm, err := c.conn.Core.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(ctx, kubeadmConfigMap, metav1.GetOptions{})
	if err := Wrap("read "+where, err); errors.Is(err, ErrNotFound) {
		return Networks{}, nil
	} else if err != nil {
		return Networks{}, err
	}
	n, err := parseKubeadmNetworking(cm.Data[kubeadmKey])
	if err != nil {
		return Networks{}, fmt.Errorf("%w: %s: %s.%w; correct it or set the cluster's pod ranges", ErrBadConfig, where, kubeadmKey, err)
	}
	return n, nil
}

// LearnNetworks returns the ranges of a cluster. Pod ranges that are configured take the
// place of those that the cluster says, also of those that cannot be read.
func LearnNetworks(ctx context.Context, cluster interface {
	ClusterNetworks(context.Context) (Networks, error)
}, podCIDRs []netip.Prefix,
) (Networks, error) {
	n, err := cluster.ClusterNetworks(ctx)
	if len(podCIDRs) > 0 {
		n.PodCIDRs = podCIDRs
		if errors.Is(err, ErrBadConfig) {
			err = nil // the setting is what makes up for it
		}
	}
	if err != nil {
		return Networks{}, fmt.Errorf("learn the cluster's pod ranges: %w", err)
	}
	return n, nil
}

// parseKubeadmNetworking reads networking.podSubnet and networking.serviceSubnet of a
// kubeadm ClusterConfiguration: prefixes separated by commas.
func parseKubeadmNetworking(text string) (n Networks, err error) {
	var config struct {
		Networking struct {
			PodSubnet     string `json:"podSubnet"`
			ServiceSubnet string `json:"serviceSubnet"`
		} `json:"networking"`
	}
	if err := yaml.Unmarshal([]byte(text), &config); err != nil {
		return Networks{}, fmt.Errorf("networking: %w", err)
	}
	if n.PodCIDRs, err = parseSubnets("podSubnet", config.Networking.PodSubnet); err != nil {
		return Networks{}, err
	}
	if n.ServiceCIDRs, err = parseSubnets("serviceSubnet", config.Networking.ServiceSubnet); err != nil {
		return Networks{}, err
	}
	return n, nil
}

func parseSubnets(field, text string) (out []netip.Prefix, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, nil
	}
	for part := range strings.SplitSeq(text, ",") {
		prefix, err := netip.ParsePrefix(strings.TrimSpace(part))
		if err != nil {
			return nil, fmt.Errorf("networking.%s %q: %w", field, text, err)
		}
		out = append(out, prefix.Masked())
	}
	return out, nil
}

// Node returns a node as the API server has it now, ErrNotFound if it has none.
func (c *Client) Node(ctx context.Context, name string) (Node, error) {
	object, err := c.conn.Core.CoreV1().Nodes().Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Node{}, Wrap("read node "+name, err)
	}
	return NodeOf(object)
}

// Pod returns a pod as the API server has it now, ErrNotFound if it has none.
func (c *Client) Pod(ctx context.Context, namespace, name string) (Pod, error) {
	object, err := c.conn.Core.CoreV1().Pods(namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return Pod{}, Wrap("read pod "+namespace+"/"+name, err)
	}
	return PodOf(object)
}

// DaemonSetUID returns the UID of a DaemonSet in the client's namespace as the
// API server has it now, ErrNotFound if it has none.
func (c *Client) DaemonSetUID(ctx context.Context, name string) (string, error) {
	object, err := c.conn.Core.AppsV1().DaemonSets(c.conn.Namespace).Get(ctx, name, metav1.GetOptions{})
	if err != nil {
		return "", Wrap("read daemonset "+c.conn.Namespace+"/"+name, err)
	}
	return string(object.UID), nil
}

// AgentPods returns the pods of the node agents, in no order.
func (c *Client) AgentPods(ctx context.Context) ([]Pod, error) {
	list, err := c.conn.Core.CoreV1().Pods(c.conn.Namespace).List(ctx, metav1.ListOptions{
		FieldSelector: fields.OneTermEqualSelector("spec.serviceAccountName", AgentServiceAccount).String(),
	})
	if err != nil {
		return nil, Wrap("list pods of "+AgentServiceAccount, err)
	}
	var out []Pod
	for i := range list.Items {
		pod, err := PodOf(&list.Items[i])
		if err != nil {
			return nil, err
		}
		out = append(out, pod)
	}
	return out, nil
}

// Target is an HTTP server in a pod.
type Target struct {
	Namespace, Pod string
	Port           uint16
}

// ProxyGet reads a path from an HTTP server in a pod through the API server. So it works
// wherever the API server can be reached.
func (c *Client) ProxyGet(ctx context.Context, t Target, path string) ([]byte, error) {
	body, err := c.conn.Core.CoreV1().Pods(t.Namespace).ProxyGet("http", t.Pod, fmt.Sprint(t.Port), path, nil).DoRaw(ctx)
	if err != nil {
		return nil, Wrap(fmt.Sprintf("get %s from pod %s/%s", path, t.Namespace, t.Pod), err)
	}
	return body, nil
}
