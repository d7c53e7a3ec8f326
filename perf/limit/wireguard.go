// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package limit

import (
	"context"
	"crypto/ecdh"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/sealane/sealane/perf/netnsexec"
)

const (
	underlayMTU   = 1500 // as in the lab
	overhead      = 60   // bytes that WireGuard puts around a packet over IPv4
	wireguardPort = 51820
	uapiDir       = "/var/run/wireguard" // wireguard-go's
	uapiPatience  = 20 * time.Second
)

// tunnelEnd is one end of a tunnel between two nodes.
type tunnelEnd struct {
	node   netnsexec.Netns
	device string
	outer  netip.Prefix // of the node
	inner  netip.Addr   // inside the tunnel
}

// start starts wireguard-go and waits until it can be configured.
func (e tunnelEnd) start(ctx context.Context, program string) (stop func(), err error) {
	ctx, cancel := context.WithCancel(ctx)
	cmd := e.node.Command(ctx, "env", "LOG_LEVEL=error", program, "--foreground", e.device)
	if err := cmd.Start(); err != nil {
		cancel()
		return nil, err
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	stop = func() {
		cancel() // it then removes its device and its socket
		<-ended
		_ = os.Remove(e.socket()) // unless it took too long and was killed
	}
	if err := e.awaitSocket(ctx, ended); err != nil {
		stop()
		return nil, fmt.Errorf("start %s: %w", program, err)
	}
	return stop, nil
}

// awaitSocket waits until the socket answers, or the process has ended.
func (e tunnelEnd) awaitSocket(ctx context.Context, ended chan error) error {
	ctx, cancel := context.WithTimeout(ctx, uapiPatience)
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for {
		c, err := net.Dial("unix", e.socket())
		if err == nil {
			return c.Close()
		}
		select {
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case err := <-ended:
			ended <- err // for stop
			return fmt.Errorf("it has ended: %w", err)
		case <-tick.C:
		}
	}
}

func (e tunnelEnd) socket() string { return filepath.Join(uapiDir, e.device+".sock") }

// configure speaks WireGuard's configuration protocol
// (www.wireguard.com/xplatform).
func (e tunnelEnd) configure(own *ecdh.PrivateKey, peer tunnelEnd, key *ecdh.PublicKey) error {
	c, err := net.Dial("unix", e.socket())
	if err != nil {
		return err
	}
	defer c.Close()
	lines := []string{
		"set=1",
		"private_key=" + hex.EncodeToString(own.Bytes()),
		"listen_port=" + strconv.Itoa(wireguardPort),
		"public_key=" + hex.EncodeToString(key.Bytes()),
		"endpoint=" + netip.AddrPortFrom(peer.outer.Addr(), wireguardPort).String(),
		"allowed_ip=" + netip.PrefixFrom(peer.inner, peer.inner.BitLen()).String(),
		"", "",
	}
	if _, err := io.WriteString(c, strings.Join(lines, "\n")); err != nil {
		return err
	}
	reply := make([]byte, 100)
	n, err := c.Read(reply)
	if err != nil {
		return err
	}
	if got := string(reply[:n]); !strings.HasPrefix(got, "errno=0\n") {
		return fmt.Errorf("configure %s: %w: %q", e.device, ErrAnswer, got)
	}
	return nil
}

// connectTunnel gives both ends keys, addresses and a route to each other.
func connectTunnel(ctx context.Context, ends [2]tunnelEnd, mtu int) error {
	var keys [2]*ecdh.PrivateKey
	for i := range keys {
		key, err := ecdh.X25519().GenerateKey(rand.Reader)
		if err != nil {
			return err
		}
		keys[i] = key
	}
	for i, own := range ends {
		peer := ends[1-i]
		if err := own.configure(keys[i], peer, keys[1-i].PublicKey()); err != nil {
			return err
		}
		err := ip(ctx, own.node,
			"address add "+own.inner.String()+"/32 dev "+own.device,
			"link set "+own.device+" mtu "+strconv.Itoa(mtu)+" up",
			"route add "+peer.inner.String()+"/32 dev "+own.device+" src "+own.inner.String(),
		)
		if err != nil {
			return err
		}
	}
	return nil
}
