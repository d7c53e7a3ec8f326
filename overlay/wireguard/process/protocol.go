// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package process

import (
	"errors"
	"fmt"
	"regexp"

	"github.com/sealane/sealane/overlay/backend"
)

// DefaultSocket is the path of the process's socket on a node.
const DefaultSocket = "/run/sealane/wireguard.sock"

var (
	// ErrUnavailable means that nothing listens on the socket.
	ErrUnavailable = errors.New("the sealane-wireguard process does not answer")
	// ErrRefused means that the process understood the request and refused it; the text is
	// its own.
	ErrRefused = errors.New("refused by sealane-wireguard")
	// ErrRequest means that a request is malformed.
	ErrRequest = errors.New("invalid request")
)

// The operations of a Request.
const (
	opEnsure = "ensure"
	opDelete = "delete"
	opList   = "list"
	opWatch  = "watch" // answered at once; then the connection stays open until the process ends
)

// Request is what the daemon sends.
type Request struct {
	Op     string `json:"op"`
	Device Device `json:"device,omitzero"`
}

// Device is a WireGuard device of the process.
type Device struct {
	Name string `json:"name"`
	MTU  int    `json:"mtu,omitempty"`  // bytes
	Port uint16 `json:"port,omitempty"` // UDP; may be changed later through WireGuard's own protocol
}

// Response is what the process answers.
type Response struct {
	Mode    backend.Type `json:"mode"` // what serves WireGuard on the node; if Kernel, the process is idle
	Devices []Device     `json:"devices,omitempty"`
	Error   string       `json:"error,omitempty"`
}

// validName accepts only the tunnels' names, so that nobody can make the privileged process
// touch another device.
func validName(name string) error {
	ok, err := regexp.MatchString(`^sealane-wg[01][01]$`, name)
	if err != nil || !ok {
		return fmt.Errorf("%w: device %q: want sealane-wg00, -wg01, -wg10 or -wg11", ErrRequest, name)
	}
	return nil
}

func (r Request) validate() error {
	switch r.Op {
	case opList, opWatch:
		return nil
	case opDelete:
		return validName(r.Device.Name)
	case opEnsure:
		if r.Device.MTU < 576 || r.Device.MTU > 65535 {
			return fmt.Errorf("%w: mtu %d: want 576 to 65535", ErrRequest, r.Device.MTU)
		}
		if r.Device.Port == 0 {
			return fmt.Errorf("%w: port 0: want 1 to 65535", ErrRequest)
		}
		return validName(r.Device.Name)
	}
	return fmt.Errorf("%w: unknown operation %q", ErrRequest, r.Op)
}
