// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podnet

import (
	"errors"
	"fmt"
	"io/fs"
	"os"

	"github.com/sealane/sealane/internal/nl"
)

// setting is one kernel setting of a namespace.
type setting struct {
	name, value string
}

// innerSettings returns the settings of the pod's end. Without an IPv6 address the pod has
// no IPv6 at all, because it would otherwise solicit routers that do not exist. With one it
// has IPv6, even if the runtime has switched IPv6 off for new devices, and nobody can
// advertise another router to it.
func (p *pair) innerSettings() []setting {
	dev := "ipv6/conf/" + p.spec.IfName
	if !p.spec.has6() {
		return []setting{{dev + "/disable_ipv6", "1"}}
	}
	return []setting{{dev + "/disable_ipv6", "0"}, {dev + "/accept_ra", "0"}}
}

// outerSettings returns the settings of the host's end: it forwards, whatever the default
// for new devices is; it accepts no pod as a router; and it has no link-local address of
// its own, because nothing talks to it.
func (p *pair) outerSettings() []setting {
	dev := p.spec.HostIfName
	settings := []setting{{"ipv4/conf/" + dev + "/forwarding", "1"}}
	if !p.spec.has6() {
		return append(settings, setting{"ipv6/conf/" + dev + "/disable_ipv6", "1"})
	}
	return append(settings,
		setting{"ipv6/conf/" + dev + "/disable_ipv6", "0"},
		setting{"ipv6/conf/" + dev + "/accept_ra", "0"},
		setting{"ipv6/conf/" + dev + "/forwarding", "1"},
		setting{"ipv6/conf/" + dev + "/addr_gen_mode", "1"},
	)
}

// tune writes settings in one visit to the namespace, because each visit costs a thread. A
// kernel without IPv6 lacks the settings under ipv6, and does not need them.
func tune(h *nl.Handle, settings []setting) error {
	return h.Do(func() error {
		for _, s := range settings {
			// The file is opened without O_CREATE and O_TRUNC, which os.WriteFile would
			// use.
			f, err := os.OpenFile("/proc/sys/net/"+s.name, os.O_WRONLY, 0)
			if errors.Is(err, fs.ErrNotExist) {
				continue
			}
			if err != nil {
				return fmt.Errorf("open setting: %w", err)
			}
			_, err = f.WriteString(s.value)
			if err := errors.Join(err, f.Close()); err != nil {
				return fmt.Errorf("set net/%s=%s: %w", s.name, s.value, err)
			}
		}
		return nil
	})
}
