// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package nl

import (
	"context"
	"errors"

	"github.com/vishvananda/netlink/nl"
	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// watchGroups are the changes that Watch reports.
func watchGroups() []uint {
	return []uint{
		unix.RTNLGRP_LINK, unix.RTNLGRP_IPV4_IFADDR, unix.RTNLGRP_IPV6_IFADDR,
		unix.RTNLGRP_IPV4_ROUTE, unix.RTNLGRP_IPV6_ROUTE,
		unix.RTNLGRP_IPV4_RULE, unix.RTNLGRP_IPV6_RULE,
	}
}

// Watch reports changes of devices, addresses, routes or rules. The channel holds one
// pending report however many changes there were. A slow reader, or a reader that the
// kernel could not tell about every change, loses detail but never the fact that something
// changed. The channel is closed when ctx ends or the socket fails.
func (h *Handle) Watch(ctx context.Context) (<-chan struct{}, error) {
	s, err := nl.SubscribeAt(h.ns, netns.None(), unix.NETLINK_ROUTE, watchGroups()...)
	if err != nil {
		return nil, kernelError(err, "subscribe to netlink")
	}
	changed := make(chan struct{}, 1)
	stop := context.AfterFunc(ctx, s.Close) // ends Receive
	go func() {
		defer close(changed)
		defer func() {
			if stop() {
				s.Close()
			}
		}()
		for {
			// ENOBUFS: the socket overflowed, so something changed.
			if _, _, err := s.Receive(); err != nil && !errors.Is(err, unix.ENOBUFS) {
				return
			}
			select {
			case changed <- struct{}{}:
			default:
			}
		}
	}()
	return changed, nil
}
