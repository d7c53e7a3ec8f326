// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"flag"
	"io"
	"strings"
	"testing"
)

func TestFlags(t *testing.T) {
	for name, tc := range map[string]struct {
		args []string
		want string // in the error; empty: none
	}{
		"least":              {[]string{"--node-name=a"}, ""},
		"all":                {[]string{"--node-name=a", "--lane=vxlan", "--insecure-plaintext", "--mtu=1400", "--cluster-pod-cidrs=10.0.0.0/8, fd00::/48", "--uplinks=eth0,eth1", "--log-level=debug"}, ""},
		"no node":            {nil, "--node-name"},
		"plaintext unasked":  {[]string{"--node-name=a", "--lane=vxlan"}, "--insecure-plaintext"},
		"unknown lane":       {[]string{"--node-name=a", "--lane=ipip"}, "--lane=ipip"},
		"port without room":  {[]string{"--node-name=a", "--lane-port=65533"}, "--lane-port=65533"},
		"metrics address":    {[]string{"--node-name=a", "--metrics-address=9754"}, "--metrics-address=9754"},
		"readers":            {[]string{"--node-name=a", "--metrics-allow-from=10.0.0.1"}, `"10.0.0.1" is no address range`},
		"no controller":      {[]string{"--node-name=a", "--controller-port=0", "--metrics-allow-from=10.0.0.0/8"}, ""},
		"no port":            {[]string{"--node-name=a", "--lane-port=x"}, `"x" is no port`},
		"range":              {[]string{"--node-name=a", "--cluster-pod-cidrs=10.0.0.0"}, `"10.0.0.0" is no address range`},
		"small mtu":          {[]string{"--node-name=a", "--mtu=900"}, "--mtu=900"},
		"short period":       {[]string{"--node-name=a", "--rotation-period=10s"}, "--rotation-period=10s"},
		"no rotation":        {[]string{"--node-name=a", "--rotation-period=0"}, ""},
		"unknown mode":       {[]string{"--node-name=a", "--post-quantum=maybe"}, "--post-quantum=maybe"},
		"short certificates": {[]string{"--node-name=a", "--certificate-lifetime=1m"}, "--certificate-lifetime"},
		"negative grace":     {[]string{"--node-name=a", "--expired-grace=-1h"}, "--expired-grace=-1h"},
		"strict":             {[]string{"--node-name=a", "--expired-grace=0", "--strict-continuity"}, ""},
		"relative path":      {[]string{"--node-name=a", "--state-dir=x"}, "--state-dir=x"},
	} {
		t.Run(name, func(t *testing.T) {
			var c Config
			fs := flag.NewFlagSet("test", flag.ContinueOnError)
			fs.SetOutput(io.Discard)
			c.Register(fs)
			err := fs.Parse(tc.args)
			if err == nil {
				err = c.Validate()
			}
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("error %v, want %q in it", err, tc.want)
			}
		})
	}
}
