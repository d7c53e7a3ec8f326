// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package podserver

import (
	"errors"
	"fmt"
	"net/netip"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/cni/podnet"
	"github.com/sealane/sealane/daemonset/enforce"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/internal/nl"
)

// Recall tells the data path and the enforcer of the pods that an earlier daemon
// connected, removes the endpoints of pods that went away since, and
// returns how many pods there are. Known are the endpoints in the data path. It replaces no program yet:
// until policies and lanes are in the data path, the earlier daemon's programs have
// what they need, and ours may not.
func (s *Server) Recall(known map[netip.Addr]bpf.Endpoint) (pods int, err error) {
	var all []enforce.Attachment
	for _, l := range s.leases.Leases() {
		link, err := s.links.LinkByName(podnet.HostName(l.Owner))
		if errors.Is(err, nl.ErrNotFound) {
			continue // the lease waits for its DEL, or for the repair
		}
		if err != nil {
			return 0, err
		}
		if err := s.introduce(link.Index, l.Addresses); err != nil {
			return 0, fmt.Errorf("make %s/%s known again: %w", l.Meta.Namespace, l.Meta.Name, err)
		}
		for _, a := range l.Addresses {
			delete(known, a)
		}
		all = append(all, enforce.Attachment{
			Pod: cni.PodRef{Namespace: l.Meta.Namespace, Name: l.Meta.Name, UID: l.Meta.UID}, Addresses: l.Addresses,
		})
	}
	s.enforcer.Restore(all)
	var errs []error
	for a := range known {
		errs = append(errs, s.datapath.DeleteEndpoint(a))
	}
	return len(all), errors.Join(errs...)
}

// Restore puts this daemon's programs on the devices of pods that an earlier one
// connected. Pods notice nothing.
func (s *Server) Restore() error {
	for _, l := range s.leases.Leases() {
		name := podnet.HostName(l.Owner)
		link, err := s.links.LinkByName(name)
		if err == nil {
			err = s.datapath.AttachPod(bpf.Device{Index: link.Index, Name: name})
		}
		if err != nil && !s.gone(l.Owner) { // a DEL may come at any moment
			return fmt.Errorf("attach programs to %s/%s again: %w", l.Meta.Namespace, l.Meta.Name, err)
		}
	}
	return nil
}

// gone reports whether an owner has no device.
func (s *Server) gone(owner ipam.Owner) bool {
	_, err := s.links.LinkByName(podnet.HostName(owner))
	return errors.Is(err, nl.ErrNotFound)
}

// Repair releases the addresses of pods that ended without a DEL: their device is
// gone, or the API server has not listed such a pod for the allocator's grace.
// Live are the pods of this node that it lists now.
func (s *Server) Repair(live []kube.Pod) {
	devices, err := s.devices()
	if err != nil {
		s.log.Error("leases not compared with pods", "error", err)
		return
	}
	names, uids := map[string]bool{}, map[string]bool{}
	for _, l := range live {
		names[l.Namespace+"/"+l.Name], uids[l.UID] = true, true
	}
	stale := s.leases.Stale(func(l ipam.Lease) bool {
		// A static pod has another UID in the API than the kubelet gives us.
		seen := l.Meta.Name == "" || uids[l.Meta.UID] || names[l.Meta.Namespace+"/"+l.Meta.Name]
		return devices[podnet.HostName(l.Owner)] && !s.leases.Missed(l.Owner, seen)
	})
	for _, l := range stale {
		if err := s.remove(l.Owner, l.Addresses); err != nil {
			s.log.Error("leaked address not released", "addresses", l.Addresses, "error", err)
			continue
		}
		s.log.Warn("leaked address released", "addresses", l.Addresses, "pod", l.Meta.Namespace+"/"+l.Meta.Name)
	}
}

// devices returns the names of all devices of the host.
func (s *Server) devices() (map[string]bool, error) {
	all, err := s.links.Links()
	if err != nil {
		return nil, err
	}
	names := map[string]bool{}
	for _, l := range all {
		names[l.Name] = true
	}
	return names, nil
}
