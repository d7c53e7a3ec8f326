// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package backend names what moves the packets of a node's tunnels: the kernel, or
// a process in user space. The socket of sealane-wireguard, the reports of agents
// and their metrics all use these names.
package backend

// Type is what moves the packets of a tunnel. The zero value means unknown: there is no
// tunnel yet.
type Type string

// The types.
const (
	Kernel    Type = "kernel"
	UserSpace Type = "user-space"
)

// formerUserSpace is what older programs call UserSpace. An agent still meets it, because a
// sealane-wireguard process outlives upgrades of the agent.
const formerUserSpace = "userspace"

// UnmarshalText implements encoding.TextUnmarshaler. It accepts the former name of
// UserSpace, and keeps unknown names, which newer programs may use.
func (t *Type) UnmarshalText(text []byte) error {
	*t = Type(text)
	if *t == formerUserSpace {
		*t = UserSpace
	}
	return nil
}
