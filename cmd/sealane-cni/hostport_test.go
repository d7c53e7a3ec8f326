// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"github.com/containernetworking/cni/pkg/types"
	"github.com/google/go-cmp/cmp"

	"github.com/sealane/sealane/cni/hostport"
)

// portmapCall is what one call of portmap received.
type portmapCall struct {
	Command, ContainerID string
	Conf                 struct {
		CNIVersion, Name, Type string
		SNAT                   bool
		RuntimeConfig          struct{ PortMappings []map[string]any }
		PrevResult             json.RawMessage
	}
}

// portmap stands in for the plugin of that name: it records its input next to its program,
// and passes the result on. It fails for each command that has a file
// portmap-fails-<command>.
func portmap(program string) int {
	call := portmapCall{Command: os.Getenv("CNI_COMMAND"), ContainerID: os.Getenv("CNI_CONTAINERID")}
	conf, err := io.ReadAll(os.Stdin)
	if err == nil {
		err = json.Unmarshal(conf, &call.Conf)
	}
	var line []byte
	if err == nil {
		line, err = json.Marshal(call)
	}
	if err == nil {
		var log *os.File
		if log, err = os.OpenFile(program+".log", os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600); err == nil {
			_, err = log.Write(append(line, '\n'))
		}
	}
	if _, missing := os.Stat(program + "-fails-" + call.Command); err == nil && missing == nil {
		err = types.NewError(types.ErrInternal, "iptables says no", "")
	}
	if err != nil {
		fmt.Printf(`{"cniVersion":"1.1.0","code":999,"msg":%q}`, err)
		return 1
	}
	if call.Command == "ADD" {
		fmt.Printf("%s", call.Conf.PrevResult)
	}
	return 0
}

// portmapCalls returns all calls of portmap so far.
func (l *lab) portmapCalls(t *testing.T) (all []portmapCall) {
	t.Helper()
	log, err := os.ReadFile(filepath.Join(l.bin, hostport.Plugin+".log"))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for line := range bytes.Lines(log) {
		var c portmapCall
		if err := json.Unmarshal(line, &c); err != nil {
			t.Fatal(err)
		}
		all = append(all, c)
	}
	return all
}

// portmapFails makes portmap fail for a command from now on, or succeed again.
func (l *lab) portmapFails(t *testing.T, command string, fails bool) {
	t.Helper()
	file := filepath.Join(l.bin, hostport.Plugin+"-fails-"+command)
	err := os.Remove(file)
	if fails {
		err = os.WriteFile(file, nil, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// commands returns the calls of portmap, by name, and forgets them.
func (l *lab) commands(t *testing.T) (names []string) {
	t.Helper()
	for _, c := range l.portmapCalls(t) {
		names = append(names, c.Command)
	}
	if err := os.RemoveAll(filepath.Join(l.bin, hostport.Plugin+".log")); err != nil {
		t.Fatal(err)
	}
	return names
}

const withPort = `"portmap":{"snat":true},"runtimeConfig":{"portMappings":[{"hostPort":80,"containerPort":8080,"protocol":"tcp"}]}`

func TestPortmapHearsOfHostPortsAlone(t *testing.T) {
	for _, version := range []string{"0.3.1", "0.4.0", "1.0.0", "1.1.0"} {
		t.Run(version, func(t *testing.T) {
			l := newLab(t)
			l.start(t)
			for _, none := range []string{`"portmap":{"snat":true}`, `"portmap":{"snat":true},"runtimeConfig":{"portMappings":[]}`} {
				l.must(t, "ADD", "none", l.network(version, none))
				l.must(t, "DEL", "none", l.network(version, none))
			}
			if calls := l.commands(t); calls != nil {
				t.Errorf("portmap was called for a pod without hostPort: %v", calls)
			}
			out := l.must(t, "ADD", "c1", l.network(version, withPort))
			told := l.network(version, withPort, `"prevResult":`+out)
			want := []string{"ADD", "DEL"}
			if version != "0.3.1" { // CHECK came with 0.4.0
				l.must(t, "CHECK", "c1", told)
				want = []string{"ADD", "CHECK", "DEL"}
			}
			l.must(t, "DEL", "c1", told)
			for _, c := range l.portmapCalls(t) {
				conf := c.Conf
				if c.ContainerID != "c1" || conf.CNIVersion != version || conf.Name != "sealane" || conf.Type != hostport.Plugin || !conf.SNAT {
					t.Errorf("portmap was told %+v", c)
				}
				ports := []map[string]any{{"hostPort": 80.0, "containerPort": 8080.0, "protocol": "tcp"}}
				if diff := cmp.Diff(ports, conf.RuntimeConfig.PortMappings); diff != "" {
					t.Errorf("%s: ports (-want +got):\n%s", c.Command, diff)
				}
				if diff := cmp.Diff(decoded(t, []byte(out)), decoded(t, conf.PrevResult)); diff != "" {
					t.Errorf("%s: result of the ADD (-want +got):\n%s", c.Command, diff)
				}
			}
			if got := l.commands(t); !slices.Equal(got, want) {
				t.Errorf("portmap was called for %v, want %v", got, want)
			}
			if left := l.handler.Attachments(); len(left) != 0 {
				t.Errorf("DEL left %v", left)
			}
		})
	}
}

// TestPortmapOfTheHostIsNotCalled: it may be old. What it has mapped for an earlier version
// is removed by ours, which hears the names that rules are found by.
func TestPortmapOfTheHostIsNotCalled(t *testing.T) {
	l := newLab(t)
	l.start(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	theirs := filepath.Join(l.bin, "portmap")
	if err := os.Symlink(self, theirs); err != nil {
		t.Fatal(err)
	}
	l.must(t, "DEL", "c1", l.network("1.1.0", withPort)) // which another version has added
	calls := l.portmapCalls(t)
	if len(calls) != 1 || calls[0].Command != "DEL" || calls[0].ContainerID != "c1" || calls[0].Conf.Name != "sealane" || len(calls[0].Conf.RuntimeConfig.PortMappings) != 1 {
		t.Errorf("calls of our portmap: %+v", calls)
	}
	l.must(t, "ADD", "c2", l.network("1.1.0", withPort))
	if _, err := os.Stat(theirs + ".log"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the host's portmap was called (%v)", err)
	}
}

// decoded makes results comparable, whatever the order of their fields.
func decoded(t *testing.T, data []byte) (v any) {
	t.Helper()
	if err := json.Unmarshal(data, &v); err != nil {
		t.Errorf("%q: %v", data, err)
	}
	return v
}

func TestFailedMappingLeavesNothing(t *testing.T) {
	l := newLab(t)
	l.start(t)
	config := l.network("1.1.0", withPort)
	l.portmapFails(t, "ADD", true)
	_, err := l.run(t, "ADD", "c1", config)
	wantCode(t, err, types.ErrInternal, "ADD of hostPorts by ", "iptables says no")
	if got, left := l.commands(t), l.handler.Attachments(); !slices.Equal(got, []string{"ADD", "DEL"}) || len(left) != 0 {
		t.Errorf("portmap was called for %v, and %v is connected; want what was mapped removed, and nothing", got, left)
	}
	l.portmapFails(t, "ADD", false)
	l.must(t, "ADD", "c1", config)

	// A port that stays mapped would lead to the next pod with the address.
	l.portmapFails(t, "DEL", true)
	_, err = l.run(t, "DEL", "c1", config)
	wantCode(t, err, types.ErrInternal, "DEL of hostPorts by ", "iptables says no")
	if len(l.handler.Attachments()) != 1 {
		t.Error("the pod's address is free, and its port still mapped")
	}
	l.portmapFails(t, "DEL", false)
	l.must(t, "DEL", "c1", config)

	if err := os.Remove(filepath.Join(l.bin, hostport.Plugin)); err != nil {
		t.Fatal(err)
	}
	_, err = l.run(t, "ADD", "c2", config)
	wantCode(t, err, types.ErrInternal, "needs the plugin sealane-portmap", l.bin, "restart")
	if left := l.handler.Attachments(); len(left) != 0 {
		t.Errorf("connected without its hostPort: %v", left)
	}
}

// TestReservedHostPort: a pod does not get a port by which its node's lanes live.
func TestReservedHostPort(t *testing.T) {
	l := newLab(t)
	l.start(t)
	ports := func(protocol string) string {
		return fmt.Sprintf(`"reservedHostPorts":["51871/udp"],"runtimeConfig":{"portMappings":[{"hostPort":51871,"containerPort":80,"protocol":%q}]}`, protocol)
	}
	_, err := l.run(t, "ADD", "c1", l.network("1.1.0", ports("UDP")))
	wantCode(t, err, types.ErrInvalidNetworkConfig, "hostPort 51871/udp", "choose another")
	if calls, left := l.commands(t), l.handler.Attachments(); calls != nil || len(left) != 0 {
		t.Errorf("portmap was called for %v, and %v is connected", calls, left)
	}
	l.must(t, "DEL", "c1", l.network("1.1.0", ports("UDP")))
	l.must(t, "ADD", "c2", l.network("1.1.0", ports("tcp")))
}
