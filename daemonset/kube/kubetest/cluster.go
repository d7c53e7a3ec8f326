// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kubetest

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"text/template"
)

// Namespace is where Install puts Sealane.
const Namespace = "sealane-system"

// Kubectl runs kubectl as the administrator and returns what it prints.
func (s *Server) Kubectl(t testing.TB, stdin string, args ...string) string {
	t.Helper()
	out, err := s.TryKubectl(t, stdin, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// TryKubectl is Kubectl for what may fail; the error has what it says.
func (s *Server) TryKubectl(t testing.TB, stdin string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), filepath.Join(s.bin, "kubectl"), append([]string{"--kubeconfig=" + s.AdminKubeconfig}, args...)...)
	cmd.Stdin = strings.NewReader(stdin)
	cmd.Env = append(os.Environ(), "HOME="+s.dir)
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("kubectl %s: %w\n%s%s", strings.Join(args, " "), err, out, stderr.String())
	}
	return strings.TrimSpace(string(out)), nil
}

// Apply applies manifests.
func (s *Server) Apply(t testing.TB, manifest string) {
	t.Helper()
	s.Kubectl(t, manifest, "apply", "--server-side", "-f", "-")
}

// Values are the values of the Helm chart that the templates used here look at.
type Values map[string]any

// Install makes the cluster objects of the Helm chart, but no pods: CRD,
// namespace, accounts, roles and the admission policy, and the agents'
// DaemonSet as an object that agent pods can belong to.
func (s *Server) Install(t testing.TB, values Values) {
	t.Helper()
	chart := filepath.Join(repository(t), "daemonset/deploy/chart")
	for _, resource := range []string{"nodekeys", "podaddresses", "revocations"} {
		s.Apply(t, read(t, filepath.Join(chart, "crds/sealane.io_"+resource+".yaml")))
		s.Kubectl(t, "", "wait", "--for=condition=Established", "crd/"+resource+".sealane.io")
	}
	s.Apply(t, fmt.Sprintf(accounts, Namespace))
	for _, name := range []string{"agent-rbac.yaml", "controller-rbac.yaml", "admission-policy.yaml", "admission-authority.yaml"} {
		s.Apply(t, render(t, filepath.Join(chart, "templates", name), values))
	}
}

const accounts = `
apiVersion: v1
kind: Namespace
metadata: {name: %[1]s}
---
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: %[1]s, name: sealane-agent}
---
apiVersion: v1
kind: ServiceAccount
metadata: {namespace: %[1]s, name: sealane-controller}
---
apiVersion: apps/v1
kind: DaemonSet
metadata: {namespace: %[1]s, name: sealane-agent}
spec:
  selector: {matchLabels: {app: agent}}
  template:
    metadata: {labels: {app: agent}}
    spec: {containers: [{name: c, image: i}]}
`

// render executes a template of the chart as Helm would; the labels that the
// chart puts on everything are left out.
func render(t testing.TB, path string, values Values) string {
	t.Helper()
	funcs := template.FuncMap{
		"include": func(string, any) string { return "" },
		"nindent": func(int, string) string { return " {}" },
	}
	tmpl, err := template.New("chart").Funcs(funcs).Parse(read(t, path))
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	err = tmpl.Execute(&out, map[string]any{"Release": map[string]any{"Namespace": Namespace}, "Values": values})
	if err != nil {
		t.Fatal(err)
	}
	return out.String()
}

// AddNode makes a Node object with pod ranges and returns its UID.
func (s *Server) AddNode(t testing.TB, name string, podCIDRs ...string) string {
	t.Helper()
	s.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Node
metadata: {name: %s}
spec: {podCIDRs: [%s]}
`, name, strings.Join(podCIDRs, ", ")))
	return s.UID(t, "node", name)
}

// Pod describes a pod that AddPod makes.
type Pod struct {
	Name, Node string
	// Account is the service account; empty means sealane-agent.
	Account string
	// Owner is the UID of the DaemonSet that controls the pod; empty means the
	// agents', "none" none.
	Owner string
}

// AddPod makes a pod in Namespace, which nothing ever runs, and returns its UID.
func (s *Server) AddPod(t testing.TB, p Pod) string {
	t.Helper()
	if p.Account == "" {
		p.Account = "sealane-agent"
	}
	if p.Owner == "" {
		p.Owner = s.UID(t, "daemonset", "sealane-agent")
	}
	owners := fmt.Sprintf("[{apiVersion: apps/v1, kind: DaemonSet, name: sealane-agent, uid: %s, controller: true}]", p.Owner)
	if p.Owner == "none" {
		owners = "[]"
	}
	s.Apply(t, fmt.Sprintf(`
apiVersion: v1
kind: Pod
metadata: {namespace: %s, name: %s, ownerReferences: %s}
spec: {nodeName: %s, serviceAccountName: %s, containers: [{name: c, image: i}]}
`, Namespace, p.Name, owners, p.Node, p.Account))
	return s.UID(t, "pod", p.Name)
}

// UID returns an object's UID.
func (s *Server) UID(t testing.TB, kind, name string) string {
	t.Helper()
	return s.Kubectl(t, "", "-n", Namespace, "get", kind, name, "-o", "jsonpath={.metadata.uid}")
}

// Token returns a token of a service account in Namespace, bound to an object
// given as "kind/name", or to none if that is empty.
func (s *Server) Token(t testing.TB, account, bound string) string {
	t.Helper()
	args := []string{"-n", Namespace, "create", "token", account}
	if kind, name, ok := strings.Cut(bound, "/"); ok {
		args = append(args, "--bound-object-kind="+kind, "--bound-object-name="+name, "--bound-object-uid="+s.UID(t, kind, name))
	}
	return s.Kubectl(t, "", args...)
}

// Agent makes the agent's pod on a node and returns a kubeconfig with its token.
func (s *Server) Agent(t testing.TB, node string) string {
	t.Helper()
	s.AddPod(t, Pod{Name: "agent-" + node, Node: node})
	return s.Kubeconfig(t, s.Token(t, "sealane-agent", "Pod/agent-"+node))
}

func read(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// repository returns the directory of go.mod, above the directory that the test
// runs in.
func repository(t testing.TB) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		up := filepath.Dir(dir)
		if up == dir {
			t.Fatal("there is no go.mod above the test")
		}
		dir = up
	}
}
