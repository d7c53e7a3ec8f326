// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// image is agnhost under the name that the lab gives it on every node.
const image = "registry.k8s.io/e2e-test-images/agnhost:2.63.0"

// dual says whether the cluster has IPv6 too.
func dual() bool { return os.Getenv("SEALANE_E2E_DUAL") == "1" }

func root() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err) // a process without a working directory
	}
	return dir
}

// labProgram builds the lab, if need be, and gives its program. Tests ask the nodes so often that to look for newer
// sources each time was most of the work.
var labProgram = sync.OnceValues(func() (string, error) {
	out, err := exec.Command(filepath.Join(root(), "test/lab/lab"), "program").Output()
	if err != nil {
		return "", fmt.Errorf("build the lab: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
})

// lab runs a command of the lab and gives its standard output.
func lab(ctx context.Context, stdin string, args ...string) (string, error) {
	program, err := labProgram()
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.WaitDelay = 5 * time.Second
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("lab %s: %w\n%s%s", strings.Join(args, " "), err, tail(out.String()), tail(errs.String()))
	}
	return out.String(), nil
}

func tail(s string) string {
	const most = 2000
	return s[max(0, len(s)-most):]
}

func kubectl(t testing.TB, args ...string) string {
	t.Helper()
	out, err := tryKubectl(t, args...)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func tryKubectl(t testing.TB, args ...string) (string, error) {
	t.Helper()
	return lab(t.Context(), "", append([]string{"kubectl"}, args...)...)
}

func apply(t testing.TB, manifest string) {
	t.Helper()
	if _, err := lab(t.Context(), manifest, "kubectl", "apply", "-f", "-"); err != nil {
		t.Fatal(err)
	}
}

// onNode runs a shell command on a node, as an operator would by ssh.
func onNode(t testing.TB, node, script string) string {
	t.Helper()
	out, err := lab(t.Context(), "", "sh", node, "bash", "-c", script)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// outside runs a command on the wire between the nodes: outside of the cluster.
func outside(t testing.TB, args ...string) (string, error) {
	t.Helper()
	pid, err := lab(t.Context(), "", "pid", "wire")
	if err != nil {
		return "", err
	}
	enter := []string{"--net=/proc/" + strings.TrimSpace(pid) + "/ns/net"}
	out, err := exec.CommandContext(t.Context(), "nsenter", append(enter, args...)...).Output()
	return string(out), err
}

// inPod runs a shell command in a pod.
func inPod(t testing.TB, namespace, pod, script string) (string, error) {
	t.Helper()
	return tryKubectl(t, "-n", namespace, "exec", pod, "--", "bash", "-c", script)
}

// eventually repeats check until it gives nil; the last error fails the test.
func eventually(t testing.TB, within time.Duration, what string, check func() error) {
	t.Helper()
	deadline := time.Now().Add(within)
	for {
		err := check()
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within %s: %v", what, within, err)
		}
		select {
		case <-t.Context().Done():
			t.Fatal(t.Context().Err())
		case <-time.After(300 * time.Millisecond):
		}
	}
}

// namespace makes a namespace that goes with the test.
func namespace(t testing.TB, name string) string {
	t.Helper()
	kubectl(t, "create", "namespace", name)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
		defer cancel()
		if _, err := lab(ctx, "", "kubectl", "delete", "namespace", name, "--wait=true", "--timeout=150s"); err != nil {
			t.Error(err)
		}
	})
	return name
}

type pod struct {
	Name, Node string
	Labels     string // YAML flow map, may be empty
	Ports      string // YAML flow list of the container's ports, may be empty
	Extra      string // more lines of the spec: containers, each "  - {…}", then other fields
	Args       string // YAML flow list; empty: an HTTP and UDP server on 8080 and 8081
}

// manifest is the pod as YAML.
func (p pod) manifest(namespace string) string {
	if p.Labels == "" {
		p.Labels = "{}"
	}
	if p.Args == "" {
		p.Args = `[netexec, --http-port=8080, --udp-port=8081]`
	}
	if p.Ports == "" {
		p.Ports = "[]"
	}
	return fmt.Sprintf(`apiVersion: v1
kind: Pod
metadata: {name: %s, namespace: %s, labels: %s}
spec:
  nodeName: %s
  terminationGracePeriodSeconds: 0
  containers:
  - {name: main, image: %q, imagePullPolicy: Never, args: %s, ports: %s}
%s---
`, p.Name, namespace, p.Labels, p.Node, image, p.Args, p.Ports, p.Extra)
}

// start makes pods and waits until they run; it gives their addresses.
func start(t testing.TB, namespace string, pods ...pod) map[string][]string {
	t.Helper()
	var all strings.Builder
	args := []string{"-n", namespace, "wait", "--for=condition=Ready", "--timeout=120s"}
	for _, p := range pods {
		all.WriteString(p.manifest(namespace))
		args = append(args, "pod/"+p.Name)
	}
	apply(t, all.String())
	if _, err := tryKubectl(t, args...); err != nil {
		t.Fatalf("%v\n%s", err, kubectl(t, "-n", namespace, "describe", "pods"))
	}
	return podAddresses(t, namespace)
}

func podAddresses(t testing.TB, namespace string) map[string][]string {
	t.Helper()
	var list struct {
		Items []struct {
			Metadata struct{ Name string }
			Status   struct{ PodIPs []struct{ IP string } }
		}
	}
	if err := json.Unmarshal([]byte(kubectl(t, "-n", namespace, "get", "pods", "-o", "json")), &list); err != nil {
		t.Fatal(err)
	}
	all := map[string][]string{}
	for _, p := range list.Items {
		for _, ip := range p.Status.PodIPs {
			all[p.Metadata.Name] = append(all[p.Metadata.Name], ip.IP)
		}
	}
	return all
}

func nodes(t testing.TB) []string {
	t.Helper()
	return strings.Fields(kubectl(t, "get", "nodes", "-o", "jsonpath={.items[*].metadata.name}"))
}

// bracketed writes an address as it stands in a URL.
func bracketed(ip string) string {
	if strings.Contains(ip, ":") {
		return "[" + ip + "]"
	}
	return ip
}
