// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/build"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/cnitest"
	"github.com/sealane/sealane/cni/hostport"
	"github.com/sealane/sealane/internal/unixsocket"
)

// TestMain turns the test binary into the plugin, or into the stand-in for portmap, when it
// is called by that name: the library executes it as a runtime does.
func TestMain(m *testing.M) {
	switch filepath.Base(os.Args[0]) {
	case cni.PluginType:
		main()
		return
	case hostport.Plugin, "portmap":
		os.Exit(portmap(os.Args[0]))
	}
	os.Exit(m.Run())
}

// lab is a node with the plugin installed, and a daemon that a test may start.
type lab struct {
	dir, bin, socket, queue string
	handler                 *cnitest.Handler
}

func newLab(t *testing.T) *lab {
	t.Helper()
	dir := t.TempDir()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	l := &lab{
		dir: dir, bin: filepath.Join(dir, "bin"), socket: filepath.Join(dir, "cni.sock"), queue: filepath.Join(dir, "queue"),
		handler: &cnitest.Handler{},
	}
	if err := os.Mkdir(l.bin, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{cni.PluginType, hostport.Plugin} {
		if err := os.Symlink(self, filepath.Join(l.bin, name)); err != nil {
			t.Fatal(err)
		}
	}
	return l
}

// start starts the daemon in the documented order: listen, drain, serve.
func (l *lab) start(t *testing.T) (stop func()) {
	t.Helper()
	listener, err := unixsocket.Listen(l.socket)
	if err != nil {
		t.Fatal(err)
	}
	if err := (cni.Queue{Dir: l.queue}).Drain(t.Context(), l.handler.Del); err != nil {
		t.Fatal(err)
	}
	return l.serve(t, listener)
}

// serve starts the daemon without draining the queue.
func (l *lab) serve(t *testing.T, listener net.Listener) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- cni.Serve(ctx, listener, l.handler, slog.New(slog.DiscardHandler)) }()
	stop = func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("serve: %v", err)
		}
		done <- nil
	}
	t.Cleanup(stop)
	return stop
}

// network returns what the runtime passes to the plugin, with additional fields.
func (l *lab) network(version string, more ...string) string {
	fields := append([]string{
		fmt.Sprintf(`"cniVersion":%q,"name":"sealane","type":"sealane-cni"`, version),
		fmt.Sprintf(`"socket":%q,"delQueueDir":%q`, l.socket, l.queue),
	}, more...)
	return "{" + strings.Join(fields, ",") + "}"
}

// run executes the plugin for container id as a runtime does, and returns its output. The
// error is the one that the plugin printed.
func (l *lab) run(t *testing.T, command, id, config string) (string, error) {
	t.Helper()
	plugin := exec.CommandContext(t.Context(), filepath.Join(l.bin, cni.PluginType))
	plugin.Env = []string{
		"CNI_COMMAND=" + command, "CNI_CONTAINERID=" + id, "CNI_NETNS=/run/netns/" + id, "CNI_IFNAME=eth0", "CNI_PATH=" + l.bin,
		"CNI_ARGS=IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-" + id + ";K8S_POD_UID=u-" + id,
	}
	plugin.Stdin = strings.NewReader(config)
	out, err := plugin.Output()
	if err == nil {
		return string(out), nil
	}
	var wire types.Error
	if err := json.Unmarshal(out, &wire); err != nil {
		t.Fatalf("%s printed what is no CNI error: %q", command, out)
	}
	return "", &wire
}

// must calls run for a command that must succeed.
func (l *lab) must(t *testing.T, command, id, config string) string {
	t.Helper()
	out, err := l.run(t, command, id, config)
	if err != nil {
		t.Errorf("%s %s: %v", command, id, err)
	}
	return out
}

func TestEveryVersionThroughARealProcess(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			l := newLab(t)
			l.start(t)
			out := l.must(t, "ADD", "c1", l.network(version))
			attachment := cni.Attachment{
				ContainerID: "c1", IfName: "eth0", Netns: "/run/netns/c1", Network: "sealane",
				Pod: cni.PodRef{Namespace: "default", Name: "web-c1", UID: "u-c1"},
			}
			want, err := cnitest.Result(attachment, 1).GetAsVersion(version)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(text(t, want), out); diff != "" {
				t.Errorf("result (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff([]cni.Attachment{attachment}, l.handler.Attachments()); diff != "" {
				t.Errorf("daemon has (-want +got):\n%s", diff)
			}
			withResult := l.network(version, `"prevResult":`+out)
			if version == "0.3.1" { // CHECK came with 0.4.0
				_, err := l.run(t, "CHECK", "c1", withResult)
				wantCode(t, err, types.ErrIncompatibleCNIVersion)
			} else {
				l.must(t, "CHECK", "c1", withResult)
				_, err := l.run(t, "CHECK", "c2", withResult)
				wantCode(t, err, types.ErrUnknownContainer, "pod is not connected")
			}
			l.must(t, "DEL", "c1", withResult)
			l.must(t, "DEL", "c1", l.network(version)) // a DEL for a pod that is gone
			if left := l.handler.Attachments(); len(left) != 0 {
				t.Errorf("DEL left %v", left)
			}
		})
	}
}

func TestPluginAnswersVersion(t *testing.T) {
	l := newLab(t)
	out := l.must(t, "VERSION", "", "")
	if !strings.Contains(out, `"supportedVersions":["0.3.1","0.4.0","1.0.0","1.1.0"]`) {
		t.Errorf("VERSION = %s", out)
	}
	_, err := l.run(t, "ADD", "c1", l.network("0.2.0"))
	wantCode(t, err, types.ErrIncompatibleCNIVersion, "0.2.0")
}

func TestStatusFollowsTheDaemon(t *testing.T) {
	l := newLab(t)
	config := l.network("1.1.0")
	_, err := l.run(t, "STATUS", "", config)
	wantCode(t, err, types.ErrPluginNotAvailable, "node daemon is unreachable", "sealane-system")

	stop := l.start(t)
	l.must(t, "STATUS", "", config)
	stop()
	for fault, code := range map[error]uint{
		cni.ErrNotReady: types.ErrPluginNotAvailable,
		cni.ErrLimited:  types.ErrLimitedConnectivity,
	} {
		l.handler.Fault = func(context.Context, cni.Command, cni.Attachment) error {
			return fmt.Errorf("%w: no lane to node-2", fault)
		}
		stop := l.start(t)
		_, err := l.run(t, "STATUS", "", config)
		wantCode(t, err, code, "no lane to node-2")
		stop()
	}
}

func TestGarbageCollection(t *testing.T) {
	l := newLab(t)
	l.start(t)
	for _, id := range []string{"c1", "c2", "c3"} {
		l.must(t, "ADD", id, l.network("1.1.0"))
	}
	l.must(t, "GC", "", l.network("1.1.0",
		`"cni.dev/valid-attachments":[{"containerID":"c2","ifname":"eth0"},{"containerID":"c9","ifname":"eth0"}]`))
	left := l.handler.Attachments()
	if len(left) != 1 || left[0].ContainerID != "c2" {
		t.Errorf("GC left %v", left)
	}
	_, err := l.run(t, "GC", "", l.network("1.1.0"))
	wantCode(t, err, types.ErrInvalidNetworkConfig, "nothing was collected")
	if len(l.handler.Attachments()) != 1 {
		t.Error("GC without a list removed attachments")
	}
}

func TestDaemonIsAway(t *testing.T) {
	l := newLab(t)
	config := l.network("1.1.0")
	stop := l.start(t)
	for _, id := range []string{"c1", "c2"} {
		l.must(t, "ADD", id, config)
	}
	stop()
	_, err := l.run(t, "ADD", "c3", config)
	wantCode(t, err, types.ErrTryAgainLater, "node daemon is unreachable", "connection refused", "check that the sealane-agent pod")
	_, err = l.run(t, "CHECK", "c1", config)
	wantCode(t, err, types.ErrTryAgainLater, "unreachable")
	for _, id := range []string{"c1", "never-was"} {
		l.must(t, "DEL", id, config)
	}
	l.start(t) // and drain
	if left := l.handler.Attachments(); len(left) != 1 || left[0].ContainerID != "c2" {
		t.Errorf("connected: %v, want c2 only", left)
	}
	if entries, err := os.ReadDir(l.queue); err != nil || len(entries) != 0 {
		t.Errorf("queue holds %v, %v", entries, err)
	}
}

func TestDelSucceedsWhateverTheDaemonSays(t *testing.T) {
	l := newLab(t)
	config := l.network("1.1.0", `"broken":"since the ADD"`)
	l.handler.Fault = func(context.Context, cni.Command, cni.Attachment) error { return errors.New("device is busy") }
	stop := l.start(t)
	l.must(t, "DEL", "c1", config)
	if entries, err := os.ReadDir(l.queue); err != nil || len(entries) != 1 {
		t.Errorf("queue holds %v, %v; want the DEL", entries, err)
	}
	stop()
	// The DEL succeeds even when the queue cannot be written.
	if err := os.RemoveAll(l.queue); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(l.queue, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	l.must(t, "DEL", "c1", config)
}

func TestPluginRefusesTheHostsNamespace(t *testing.T) {
	l := newLab(t)
	l.start(t)
	host := filepath.Join(l.dir, "host")
	if err := os.Symlink("/proc/self/ns/net", host); err != nil {
		t.Fatal(err)
	}
	plugin := exec.CommandContext(t.Context(), filepath.Join(l.bin, cni.PluginType))
	plugin.Env = []string{"CNI_COMMAND=ADD", "CNI_CONTAINERID=c1", "CNI_NETNS=" + host, "CNI_IFNAME=eth0", "CNI_PATH=" + l.bin}
	plugin.Stdin = strings.NewReader(l.network("1.1.0"))
	out, err := plugin.Output()
	if err == nil || !strings.Contains(string(out), "network namespace of the host") {
		t.Errorf("ADD to the host's namespace: %v, %s", err, out)
	}
	if left := l.handler.Attachments(); len(left) != 0 {
		t.Errorf("a refused ADD left %v", left)
	}
}

// The plugin starts once for each pod: each package that it links costs time and memory
// every time.
func TestPluginLinksLittle(t *testing.T) {
	out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-f", "{{.ImportPath}}\t{{if .Module}}{{.Dir}}{{end}}", ".").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		path, dir, _ := strings.Cut(strings.TrimSpace(line), "\t")
		for _, heavy := range []string{
			"k8s.io/", "github.com/cilium/ebpf", "net/http", "crypto/tls", "github.com/vishvananda/netlink", "text/template",
			"github.com/sealane/sealane/cni/ipam", "github.com/sealane/sealane/cni/podnet", "github.com/spf13", "github.com/prometheus",
		} {
			if path == strings.TrimSuffix(heavy, "/") || strings.HasPrefix(path, heavy) {
				t.Errorf("the plugin links %s", path)
			}
		}
		if dir != "" {
			// Reading the sources in this process makes them inputs of the test's cached
			// result.
			if _, err := build.ImportDir(dir, 0); err != nil {
				t.Error(err)
			}
		}
	}
}

// BenchmarkStart measures a process that prints its version and exits.
func BenchmarkStart(b *testing.B) {
	bin := buildPlugin(b)
	for b.Loop() {
		plugin := exec.CommandContext(b.Context(), bin)
		plugin.Env = []string{"CNI_COMMAND=VERSION"}
		if err := plugin.Run(); err != nil {
			b.Fatal(err)
		}
	}
	info, err := os.Stat(bin)
	if err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(info.Size()), "binary-bytes")
}

// BenchmarkAdd measures an ADD and a DEL from the runtime's side, with a daemon that does
// nothing: the cost of the plugin itself.
func BenchmarkAdd(b *testing.B) {
	bin := buildPlugin(b)
	socket := filepath.Join(b.TempDir(), "cni.sock")
	listener, err := unixsocket.Listen(socket)
	if err != nil {
		b.Fatal(err)
	}
	ctx, cancel := context.WithCancel(b.Context())
	done := make(chan error, 1)
	go func() { done <- cni.Serve(ctx, listener, &cnitest.Handler{}, slog.New(slog.DiscardHandler)) }()
	config := fmt.Sprintf(`{"cniVersion":"1.1.0","name":"sealane","type":"sealane-cni","socket":%q}`, socket)
	for b.Loop() {
		for _, command := range []string{"ADD", "DEL"} {
			plugin := exec.CommandContext(b.Context(), bin)
			plugin.Env = []string{
				"CNI_COMMAND=" + command, "CNI_CONTAINERID=c1", "CNI_IFNAME=eth0", "CNI_NETNS=/run/netns/none", "CNI_PATH=/opt/cni/bin",
			}
			plugin.Stdin = strings.NewReader(config)
			if out, err := plugin.Output(); err != nil {
				b.Fatalf("%v: %s", err, out)
			}
		}
	}
	cancel()
	if err := <-done; err != nil {
		b.Error(err)
	}
}

// buildPlugin builds the plugin with the options of the image.
func buildPlugin(b *testing.B) string {
	b.Helper()
	bin := filepath.Join(b.TempDir(), cni.PluginType)
	compile := exec.CommandContext(b.Context(), "go", "build", "-trimpath", "-ldflags=-s -w", "-o", bin, ".")
	compile.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := compile.CombinedOutput(); err != nil {
		b.Fatalf("%v: %s", err, out)
	}
	return bin
}

func TestPluginSaysWhatItIs(t *testing.T) {
	l := newLab(t)
	plugin := exec.CommandContext(t.Context(), filepath.Join(l.bin, cni.PluginType))
	plugin.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "CNI_") })
	out, err := plugin.CombinedOutput()
	if err != nil || !strings.Contains(string(out), "CNI plugin sealane-cni") {
		t.Errorf("without a command: %v, %s", err, out)
	}
}

// wantCode fails unless err is a CNI error with the code, and its text contains all of
// says.
func wantCode(t *testing.T, err error, code uint, says ...string) {
	t.Helper()
	var wire *types.Error
	if !errors.As(err, &wire) {
		t.Fatalf("error = %#v, want a CNI error", err)
	}
	if wire.Code != code {
		t.Errorf("code = %d, want %d: %v", wire.Code, code, err)
	}
	for _, say := range says {
		if !strings.Contains(err.Error(), say) {
			t.Errorf("error does not say %q: %v", say, err)
		}
	}
}

// text returns a result as the plugin would print it.
func text(t *testing.T, r types.Result) string {
	t.Helper()
	var out bytes.Buffer
	if err := r.PrintTo(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}
