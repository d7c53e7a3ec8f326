// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package deploy

import (
	"flag"
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
)

var update = flag.Bool("update", false, "rewrite the golden files")

func TestManifestOrder(t *testing.T) {
	m := render(t, "--include-crds", "--set", "createNamespace=true")
	place := slices.Index(m.kinds, "Namespace")
	if place < 0 {
		t.Fatal("no Namespace although createNamespace=true")
	}
	for _, kind := range m.kinds[:place] {
		if kind != "CustomResourceDefinition" {
			t.Errorf("%s comes before the Namespace", kind)
		}
	}
	for _, kind := range []string{"CustomResourceDefinition", "ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding"} {
		if !slices.Contains(m.kinds, kind) {
			t.Errorf("the manifest has no %s", kind)
		}
	}
	if slices.Contains(render(t).kinds, "Namespace") {
		t.Error("a Namespace although helm makes it")
	}
}

// TestRights compares what each ServiceAccount may do with the list that was
// reviewed: a right more or less shows in the change.
func TestRights(t *testing.T) {
	const golden = "testdata/rights.txt"
	m := render(t)
	var b strings.Builder
	for _, account := range slices.Sorted(maps.Keys(m.accounts)) {
		fmt.Fprintln(&b, account)
		slices.Sort(m.subjectRoles[account])
		for _, role := range m.subjectRoles[account] {
			fmt.Fprintln(&b, "  "+role)
			for _, rule := range m.rules[role] {
				fmt.Fprintln(&b, "    "+describe(rule))
			}
		}
	}
	if *update {
		if err := os.WriteFile(golden, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), b.String()); diff != "" {
		t.Errorf("rights (-reviewed +rendered; go test ./daemonset/deploy -update):\n%s", diff)
	}
}

func describe(r rbacv1.PolicyRule) string {
	s := strings.Join(r.Verbs, ",") + " " + strings.Join(r.Resources, ",")
	if group := strings.Join(r.APIGroups, ","); group != "" {
		s += "." + group
	}
	if len(r.ResourceNames) > 0 {
		s += " named " + strings.Join(r.ResourceNames, ",")
	}
	return s
}

// TestNoExcess states the limits that no change to the list above may pass.
func TestNoExcess(t *testing.T) {
	m := render(t, "--set", "ca.mode=secret,ca.secretName=my-ca")
	for account, roles := range m.subjectRoles {
		for _, role := range roles {
			for _, rule := range m.rules[role] {
				for _, problem := range excess(account, role, rule) {
					t.Errorf("%s: %s: %s: %s", account, role, describe(rule), problem)
				}
			}
		}
	}
	if roles := m.subjectRoles["sealane-wireguard"]; len(roles) > 0 {
		t.Errorf("sealane-wireguard has rights: %v", roles)
	}
	if token := m.accounts["sealane-wireguard"].AutomountServiceAccountToken; token == nil || *token {
		t.Error("sealane-wireguard gets a token")
	}
}

func excess(account, role string, r rbacv1.PolicyRule) []string {
	var problems []string
	for _, words := range [][]string{r.Verbs, r.Resources, r.APIGroups} {
		if slices.Contains(words, "*") {
			problems = append(problems, "a wildcard")
		}
	}
	for _, verb := range []string{"impersonate", "escalate", "bind", "deletecollection"} {
		if slices.Contains(r.Verbs, verb) {
			problems = append(problems, "the verb "+verb)
		}
	}
	if slices.Contains(r.Resources, "secrets") {
		if account == "sealane-agent" {
			problems = append(problems, "the CA is never in the agent's reach")
		}
		if strings.HasPrefix(role, "ClusterRole") || slices.Contains(r.Verbs, "list") || slices.Contains(r.Verbs, "watch") {
			problems = append(problems, "secrets beyond the named ones")
		}
		if len(r.ResourceNames) == 0 && !slices.Equal(r.Verbs, []string{"create"}) {
			problems = append(problems, "secrets without a name")
		}
	}
	return problems
}

// TestNodeCritical states what keeps the network of a node alive.
func TestNodeCritical(t *testing.T) {
	m := render(t)
	for name, set := range m.daemonSets {
		spec := set.Spec.Template.Spec
		if spec.PriorityClassName != "system-node-critical" {
			t.Errorf("%s: priority class %q", name, spec.PriorityClassName)
		}
		if !slices.ContainsFunc(spec.Tolerations, func(c corev1.Toleration) bool {
			return c.Operator == corev1.TolerationOpExists && c.Key == "" && c.Effect == ""
		}) {
			t.Errorf("%s does not tolerate everything: %v", name, spec.Tolerations)
		}
	}
	if got := m.daemonSets["sealane-wireguard"].Spec.UpdateStrategy.Type; got != "OnDelete" {
		t.Errorf("sealane-wireguard is updated by %s: an upgrade would break lanes", got)
	}
}

func TestPods(t *testing.T) {
	m := render(t, "--set", "image.repository=example.org/s,image.tag=v9")
	for _, name := range []string{"sealane-agent", "sealane-wireguard", "sealane-controller"} {
		pod, ok := m.pods[name]
		if !ok {
			t.Errorf("there is no %s", name)
			continue
		}
		if !pod.Spec.HostNetwork {
			t.Errorf("%s needs a pod network to make the pod network", name)
		}
		if _, ok := m.accounts[pod.Spec.ServiceAccountName]; !ok || pod.Spec.ServiceAccountName != name {
			t.Errorf("%s runs as %q", name, pod.Spec.ServiceAccountName)
		}
		checkContainers(t, name, pod)
	}
	controller := containers(m.pods["sealane-controller"])[0].SecurityContext
	if controller.RunAsNonRoot == nil || !*controller.RunAsNonRoot || controller.Privileged != nil {
		t.Error("the controller has more rights on its node than it needs")
	}
}

func checkContainers(t *testing.T, name string, pod corev1.PodTemplateSpec) {
	t.Helper()
	volumes := map[string]bool{}
	for _, v := range pod.Spec.Volumes {
		volumes[v.Name] = false
	}
	for _, c := range containers(pod) {
		if c.Image != "example.org/s:v9" {
			t.Errorf("%s/%s runs %s", name, c.Name, c.Image)
		}
		if c.SecurityContext == nil || c.SecurityContext.ReadOnlyRootFilesystem == nil || !*c.SecurityContext.ReadOnlyRootFilesystem {
			t.Errorf("%s/%s may write to its root file system", name, c.Name)
		}
		for _, mount := range c.VolumeMounts {
			if _, ok := volumes[mount.Name]; !ok {
				t.Errorf("%s/%s mounts %s, which is no volume", name, c.Name, mount.Name)
			}
			volumes[mount.Name] = true
		}
	}
	for volume, used := range volumes {
		if !used {
			t.Errorf("%s: volume %s is mounted nowhere", name, volume)
		}
	}
}

// TestClusterCA runs the controller where the key is, and lets it read that only.
func TestClusterCA(t *testing.T) {
	pod := render(t, "--set", "ca.mode=cluster,ca.clusterKeyFile=/etc/pki/ca.key").pods["sealane-controller"]
	if _, ok := pod.Spec.NodeSelector["node-role.kubernetes.io/control-plane"]; !ok {
		t.Error("the controller is not bound to control-plane nodes")
	}
	var paths []string
	for _, v := range pod.Spec.Volumes {
		if v.HostPath == nil || v.HostPath.Type == nil || *v.HostPath.Type != corev1.HostPathFile {
			t.Errorf("volume %s is more than one file", v.Name)
			continue
		}
		paths = append(paths, v.HostPath.Path)
	}
	if diff := cmp.Diff([]string{"/etc/kubernetes/pki/ca.crt", "/etc/pki/ca.key"}, paths); diff != "" {
		t.Errorf("files (-want +got):\n%s", diff)
	}
}

// TestControllerPlacement: the keys of the certificate authority are on no worker by
// default, since root there would be every node.
func TestControllerPlacement(t *testing.T) {
	const label = "node-role.kubernetes.io/control-plane"
	bound := func(args ...string) bool {
		a := render(t, args...).pods["sealane-controller"].Spec.Affinity
		if a == nil || a.NodeAffinity == nil || a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
			return false
		}
		terms := a.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms
		return len(terms) == 1 && slices.ContainsFunc(terms[0].MatchExpressions, func(r corev1.NodeSelectorRequirement) bool {
			return r.Key == label && r.Operator == corev1.NodeSelectorOpExists
		})
	}
	if !bound() || !bound("--set", "ca.mode=cluster") {
		t.Error("the controller's pod fits a worker by default")
	}
	if !slices.ContainsFunc(render(t).pods["sealane-controller"].Spec.Tolerations, func(c corev1.Toleration) bool { return c.Key == label }) {
		t.Error("the controller's pod does not tolerate the taint of the nodes that it is bound to")
	}
	if bound("--set", "controller.placement=any") {
		t.Error("controller.placement=any does not free the controller")
	}
}

// TestPortsAreDeclared: the scheduler keeps pods with a hostPort of ours away, and no two
// pods of ours from each other.
func TestPortsAreDeclared(t *testing.T) {
	for set, want := range map[string][]string{
		"lane.port=40000": {"9754/TCP", "40000/UDP", "40001/UDP", "40002/UDP", "40003/UDP", "51875/TCP"},
		"lane.kind=vxlan,lane.insecurePlaintext=true": {"9754/TCP", "4789/UDP"},
	} {
		seen := map[string]string{}
		var got []string
		for name, pod := range render(t, "--set", set).pods {
			for _, c := range containers(pod) {
				for _, p := range c.Ports {
					text := fmt.Sprintf("%d/%s", p.HostPort, p.Protocol)
					if p.HostPort != 0 && seen[text] != "" {
						t.Errorf("%s: %s and %s both declare %s, so that they cannot share a node", set, name, seen[text], text)
					}
					seen[text] = name
					if name == "sealane-agent" {
						got = append(got, text)
					}
				}
			}
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s: ports of the agent (-want +got):\n%s", set, diff)
		}
	}
}

func TestUninstall(t *testing.T) {
	m := render(t, "--set", "uninstall=true", "--show-only", "templates/uninstall.yaml")
	if diff := cmp.Diff([]string{"Namespace", "DaemonSet"}, m.kinds); diff != "" {
		t.Errorf("kinds (-want +got):\n%s", diff)
	}
	set := m.daemonSets["sealane-uninstall"]
	if set.Namespace == namespace {
		t.Error("it stands in the namespace that is deleted before it is used")
	}
	spec := set.Spec.Template.Spec
	if spec.AutomountServiceAccountToken == nil || *spec.AutomountServiceAccountToken {
		t.Error("it gets a token")
	}
	if len(spec.InitContainers) != 1 || spec.InitContainers[0].Args[0] != "clean" {
		t.Error("a pod is ready before its node is clean")
	}
	if slices.Contains(render(t).kinds, "sealane-uninstall") {
		t.Error("the uninstaller is in the normal manifest")
	}
}
