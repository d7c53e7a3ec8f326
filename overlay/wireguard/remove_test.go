// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package wireguard

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.zx2c4.com/wireguard/wgctrl/wgtypes"

	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
)

// devices are several, of which some cannot be configured.
type devices map[string]*fakeDevice

var errBroken = errors.New("broken")

func (d devices) Device(name string) (*wgtypes.Device, error) { return d[name].Device(name) }

func (d devices) ConfigureDevice(name string, cfg wgtypes.Config) error {
	switch f, there := d[name]; {
	case !there:
		return os.ErrNotExist
	case f == nil:
		return errBroken
	default:
		return f.ConfigureDevice(name, cfg)
	}
}

// TestRemoveNeedsNothingElse: a peer leaves its device with neither plan nor key of this
// node, whatever is wrong with other devices, and the other peers are not touched.
func TestRemoveNeedsNothingElse(t *testing.T) {
	k := newKeyring(t, "a", "b")
	f := newFake(t)
	f.dev.Name = "sealane-wg01"
	f.apply(mustDiff(t, overlay.Tunnel{Peers: []overlay.TunnelPeer{
		k.peer("a", "192.0.2.1:1", true, "10.0.1.0/24"), k.peer("b", "192.0.2.2:1", true, "10.0.2.0/24"),
	}}, nil, situation{}))
	a, b := k["a"].Key(), k["b"].Key()
	set := map[keymgr.PublicKey]netip.AddrPort{a: endpoint("192.0.2.1:1"), b: endpoint("192.0.2.2:1")}
	backend := &Backend{
		ctl:       devices{"sealane-wg00": nil, "sealane-wg01": f, "sealane-wg10": nil},
		endpoints: map[string]map[keymgr.PublicKey]netip.AddrPort{"sealane-wg01": set},
	}
	gone := map[string][]keymgr.PublicKey{}
	for _, name := range []string{"sealane-wg00", "sealane-wg01", "sealane-wg10", "sealane-wg11"} {
		gone[name] = []keymgr.PublicKey{a}
	}
	if err := backend.Remove(gone); !errors.Is(err, errBroken) {
		t.Errorf("error %v, want that of the other devices", err)
	}
	if len(f.dev.Peers) != 1 || f.dev.Peers[0].PublicKey != k.wg("b") || len(f.dev.Peers[0].AllowedIPs) != 1 || f.poked[k.wg("b")] != 1 {
		t.Errorf("left: %+v", f.dev.Peers)
	}
	if len(set) != 1 {
		t.Errorf("endpoints that are remembered: %v", set)
	}
	if err := backend.Remove(map[string][]keymgr.PublicKey{"sealane-wg01": {a}, "sealane-wg11": {a}}); err != nil {
		t.Errorf("once more, and from a device that is not there: %v", err)
	}
}
