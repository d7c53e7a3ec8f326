// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

//go:build e2e

package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// probeDir is where test/probe is on each node while tests use it. Its pods
// mount it: there is no image of it.
const probeDir = "/opt/sealane-probe"

// bringProbe puts test/probe on every node.
func bringProbe(t testing.TB) {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "probe")
	build := exec.CommandContext(t.Context(), "go", "build", "-o", binary, "./test/probe")
	build.Dir, build.Env = root(), append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("build probe: %v\n%s", err, out)
	}
	program, err := os.ReadFile(binary)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range nodes(t) {
		script := "mkdir -p " + probeDir + "/out && cd " + probeDir + " && cat >part && chmod +x part && mv part probe"
		if _, err := lab(t.Context(), string(program), "sh", n, "bash", "-c", script); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if _, err := lab(context.Background(), "", "sh", n, "rm", "-rf", probeDir); err != nil {
				t.Error(err)
			}
		})
	}
}

// probe is a pod whose first process is test/probe.
type probe struct {
	Name, Node string
	Labels     map[string]string
	Ports      []containerPort
	Args       []string // none: it serves on 7000 and 7001
}

type containerPort struct {
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"`
	Port     int    `json:"containerPort"`
}

// manifest is the pod as one document of YAML.
func (p probe) manifest(ns string) string {
	if len(p.Args) == 0 {
		p.Args = []string{"serve", "7000", "7001"}
	}
	type object = map[string]any
	text, err := json.Marshal(object{
		"apiVersion": "v1", "kind": "Pod", "metadata": object{"name": p.Name, "namespace": ns, "labels": p.Labels},
		"spec": object{
			"nodeName": p.Node, "terminationGracePeriodSeconds": 0, "restartPolicy": "Never", "enableServiceLinks": false,
			"automountServiceAccountToken": false,
			"containers": []object{{
				"name": "main", "image": image, "imagePullPolicy": "Never", "command": append([]string{"/probe/probe"}, p.Args...),
				"ports": p.Ports, "volumeMounts": []object{{"name": "probe", "mountPath": "/probe"}},
			}},
			"volumes": []object{{"name": "probe", "hostPath": object{"path": probeDir}}},
		},
	})
	if err != nil {
		panic(err) // of strings only
	}
	return string(text) + "\n---\n"
}

// station is a pod that serves, and takes orders from its own node: policies
// never stand between these two.
type station struct {
	probe
	ns  string
	ips []string

	client *http.Client
}

// stations starts pods that serve, and waits until they take orders.
func stations(t testing.TB, ns string, all ...probe) map[string]*station {
	t.Helper()
	var text strings.Builder
	args := []string{"-n", ns, "wait", "--for=condition=Ready", "--timeout=120s"}
	for _, p := range all {
		text.WriteString(p.manifest(ns))
		args = append(args, "pod/"+p.Name)
	}
	apply(t, text.String())
	if _, err := tryKubectl(t, args...); err != nil {
		t.Fatalf("%v\n%s", err, kubectl(t, "-n", ns, "describe", "pods"))
	}
	ips, found := podAddresses(t, ns), map[string]*station{}
	for _, p := range all {
		s := &station{probe: p, ns: ns, ips: ips[p.Name], client: clientIn(t, p.Node)}
		eventually(t, 30*time.Second, p.Name+" takes orders", func() error { return s.order("seen", struct{}{}, nil) })
		found[p.Name] = s
	}
	return found
}

// netns is the network namespace of a machine of the lab, as a file.
func netns(t testing.TB, machine string) string {
	t.Helper()
	pid, err := lab(t.Context(), "", "pid", machine)
	if err != nil {
		t.Fatal(err)
	}
	return "/proc/" + strings.TrimSpace(pid) + "/ns/net"
}

// dialIn connects from within a network namespace.
func dialIn(ctx context.Context, netns, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread ends with the goroutine
		file, err := os.Open(netns)
		if err != nil {
			done <- result{nil, err}
			return
		}
		defer file.Close()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- result{nil, fmt.Errorf("enter %s: %w", netns, err)}
			return
		}
		conn, err := (&net.Dialer{FallbackDelay: -1}).DialContext(ctx, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

// clientIn is an HTTP client on a machine of the lab.
func clientIn(t testing.TB, machine string) *http.Client {
	t.Helper()
	ns := netns(t, machine)
	transport := &http.Transport{DialContext: func(ctx context.Context, network, address string) (net.Conn, error) {
		return dialIn(ctx, ns, network, address)
	}}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: 30 * time.Second}
}

// order has a station carry something out, and reads what came of it.
func (s *station) order(what string, question, answer any) error {
	text, err := json.Marshal(question)
	if err != nil {
		return err
	}
	r, err := s.client.Post("http://"+bracketed(s.ips[0])+":7999/"+what, "application/json", bytes.NewReader(text))
	if err != nil {
		return err
	}
	defer r.Body.Close()
	body, err := io.ReadAll(r.Body)
	if err != nil || r.StatusCode != http.StatusOK {
		return fmt.Errorf("%s of %s: %s: %s: %w", what, s.Name, r.Status, body, err)
	}
	if answer == nil {
		return nil
	}
	return json.Unmarshal(body, answer)
}

// These are what test/probe takes and gives.
type (
	target struct {
		Network string `json:"network"`
		Address string `json:"address"`
	}
	attempt struct {
		Answer, Error string
		Refused       bool
		MS            float64
	}
	course struct {
		Sent, Answered []int64
		Error          string
	}
)

// server is the name that the answer gives.
func (a attempt) server() string {
	name, _, _ := strings.Cut(a.Answer, " ")
	return name
}

// client is the address that the server saw.
func (a attempt) client() string {
	_, seen, _ := strings.Cut(a.Answer, " ")
	host, _, _ := net.SplitHostPort(seen)
	return host
}

// try connects to all targets at once.
func (s *station) try(t testing.TB, within time.Duration, targets ...target) []attempt {
	t.Helper()
	var got []attempt
	question := map[string]any{"targets": targets, "withinMS": within.Milliseconds()}
	if err := s.order("try", question, &got); err != nil {
		t.Fatal(err)
	}
	if len(got) != len(targets) {
		t.Fatalf("%s tried %d of %d targets", s.Name, len(got), len(targets))
	}
	return got
}

// seen counts what came to a station since it is there, by source and kind.
func (s *station) seen(t testing.TB) map[string]int {
	t.Helper()
	var got map[string]int
	if err := s.order("seen", struct{}{}, &got); err != nil {
		t.Fatal(err)
	}
	return got
}

// from sums up counts of packets from some sources.
func from(counts map[string]int, sources []string) (total int) {
	for k, n := range counts {
		if source, _, _ := strings.Cut(k, " "); slices.Contains(sources, source) {
			total += n
		}
	}
	return total
}

// at writes an address and a port.
func at(ip string, port int) string { return net.JoinHostPort(ip, strconv.Itoa(port)) }

// setting reads a number from the environment.
func setting(name string, otherwise int) int {
	if n, err := strconv.Atoi(os.Getenv(name)); err == nil {
		return n
	}
	return otherwise
}

// births starts pods that end by themselves, waits until they have, and reads
// what each wrote.
func births[T any](t testing.TB, ns string, all []probe) map[string]T {
	t.Helper()
	var text strings.Builder
	for i := range all {
		p := &all[i]
		p.Args = slices.Insert(slices.Clone(p.Args), 1, "-out", "/probe/out/"+ns+"."+p.Name)
		text.WriteString(p.manifest(ns))
	}
	apply(t, text.String())
	args := []string{"-n", ns, "wait", "--for=jsonpath={.status.phase}=Succeeded", "--timeout=180s"}
	for _, p := range all {
		args = append(args, "pod/"+p.Name)
	}
	if _, err := tryKubectl(t, args...); err != nil {
		t.Fatalf("%v\n%s", err, tail(kubectl(t, "-n", ns, "describe", "pods")))
	}
	found := map[string]T{}
	var mu sync.Mutex
	var wg sync.WaitGroup
	for _, n := range nodes(t) {
		wg.Go(func() {
			out, err := lab(t.Context(), "", "sh", n, "bash", "-c", "cd "+probeDir+"/out; for i in *; do [ -f $i ] && echo $i $(cat $i); done; rm -f *")
			if err != nil {
				t.Error(err)
				return
			}
			for line := range strings.Lines(out) {
				name, text, _ := strings.Cut(line, " ")
				var one T
				if err := json.Unmarshal([]byte(text), &one); err != nil {
					t.Errorf("what %s wrote: %v", name, err)
				}
				mu.Lock()
				found[strings.TrimPrefix(name, ns+".")] = one
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if len(found) != len(all) {
		t.Fatalf("%d of %d pods wrote what they saw", len(found), len(all))
	}
	return found
}

// quantile is the value below which the share of all lies.
func quantile(all []float64, share float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(all))
	return sorted[min(len(sorted)-1, int(share*float64(len(sorted))))]
}
