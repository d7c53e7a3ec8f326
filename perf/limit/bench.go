// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package limit makes the bare limits: networks of a few devices that do one thing
// and nothing else, to compare a CNI's with.
package limit

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/perf/netnsexec"
)

// Bench is a set of network namespaces without Kubernetes. Their names begin with
// sealane-perf and the number of this process.
type Bench struct {
	prefix  string
	cleanup []func() error // in reverse order
}

// New returns a Bench without namespaces.
func New() *Bench { return &Bench{prefix: "sealane-perf-" + strconv.Itoa(os.Getpid())} }

// Close removes all that was made.
func (b *Bench) Close() error {
	var errs []error
	for i := len(b.cleanup) - 1; i >= 0; i-- {
		errs = append(errs, b.cleanup[i]())
	}
	b.cleanup = nil
	return errors.Join(errs...)
}

func (b *Bench) namespace(name string) (netnsexec.Netns, error) {
	n, err := netnsexec.Make(b.prefix + "-" + name)
	if err != nil {
		return "", err
	}
	b.cleanup = append(b.cleanup, func() error { return n.Remove() })
	return n, nil
}

// wire is a veth pair between two namespaces.
type wire struct {
	inner, outer netnsexec.Netns
	name         string       // of the device in outer; the other one is eth0
	address      netip.Prefix // of eth0
	mtu          int
}

func (w wire) lay(ctx context.Context) error {
	mtu := strconv.Itoa(w.mtu)
	return ip(ctx, w.outer,
		"link add name "+w.name+" mtu "+mtu+" type veth peer name eth0 mtu "+mtu+" netns "+filepath.Base(string(w.inner)),
		"link set "+w.name+" up",
		"-n "+filepath.Base(string(w.inner))+" address add "+w.address.String()+" dev eth0",
		"-n "+filepath.Base(string(w.inner))+" link set eth0 up",
	)
}

// ip runs ip(8) in the namespace, once per line.
func ip(ctx context.Context, n netnsexec.Netns, lines ...string) error {
	for _, line := range lines {
		if _, err := n.Run(ctx, append([]string{"ip"}, strings.Fields(line)...)...); err != nil {
			return err
		}
	}
	return nil
}

// Redirect makes two namespaces behind veth pairs with nothing in between but
// bpf_redirect_peer: what the same-node path of any CNI can reach at most. Devices
// have that MTU, in bytes.
func (b *Bench) Redirect(ctx context.Context, mtu int) (p netnsexec.Path, err error) {
	var host netnsexec.Netns
	for name, n := range map[string]*netnsexec.Netns{"host": &host, "a": &p.Client, "b": &p.Server} {
		if *n, err = b.namespace(name); err != nil {
			return p, err
		}
	}
	own, other := netip.MustParsePrefix("10.99.0.1/24"), netip.MustParsePrefix("10.99.0.2/24")
	p.To = other.Addr()
	if err := (wire{inner: p.Client, outer: host, name: "pod-a", address: own, mtu: mtu}).lay(ctx); err != nil {
		return p, err
	}
	if err := (wire{inner: p.Server, outer: host, name: "pod-b", address: other, mtu: mtu}).lay(ctx); err != nil {
		return p, err
	}
	h, err := nl.OpenAt(string(host))
	if err != nil {
		return p, err
	}
	return p, errors.Join(crossRedirect(h, "pod-a", "pod-b"), h.Close())
}

// WireGuard makes two nodes at a switch, like those of the lab, with nothing
// in them but wireguard-go and a route into its device: what a lane that
// wireguard-go encrypts can reach at most. Its device has that MTU, in bytes, or what
// fits through the nodes' if that is less.
func (b *Bench) WireGuard(ctx context.Context, program string, mtu int) (p netnsexec.Path, err error) {
	var hub netnsexec.Netns
	for name, n := range map[string]*netnsexec.Netns{"switch": &hub, "n1": &p.Client, "n2": &p.Server} {
		if *n, err = b.namespace(name); err != nil {
			return p, err
		}
	}
	ends := [2]tunnelEnd{
		{node: p.Client, outer: netip.MustParsePrefix("10.98.0.1/24"), inner: netip.MustParseAddr("10.97.0.1")},
		{node: p.Server, outer: netip.MustParsePrefix("10.98.0.2/24"), inner: netip.MustParseAddr("10.97.0.2")},
	}
	p.To = ends[1].inner
	if err := ip(ctx, hub, "link add br0 type bridge", "link set br0 up"); err != nil {
		return p, err
	}
	for i := range ends {
		ends[i].device = fmt.Sprintf("slp%d-%d", os.Getpid(), i)
		port := fmt.Sprintf("port%d", i)
		if err := (wire{inner: ends[i].node, outer: hub, name: port, address: ends[i].outer, mtu: underlayMTU}).lay(ctx); err != nil {
			return p, err
		}
		if err := ip(ctx, hub, "link set "+port+" master br0"); err != nil {
			return p, err
		}
		stop, err := ends[i].start(ctx, program)
		if err != nil {
			return p, err
		}
		b.cleanup = append(b.cleanup, func() error { stop(); return nil })
	}
	return p, connectTunnel(ctx, ends, min(mtu, underlayMTU-overhead))
}
