// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/bpf/words"
	"github.com/sealane/sealane/overlay/service"
)

func toFrontend(f service.Frontend) podFrontend {
	k := podFrontend{Port: words.Port(f.Address.Port()), Proto: f.Protocol}
	k.Addr.W = words.Of(f.Address.Addr())
	return k
}

func fromFrontend(k podFrontend) service.Frontend {
	return service.Frontend{Address: netip.AddrPortFrom(words.Addr(k.Addr.W), words.Port(k.Port)), Protocol: k.Proto}
}

func toBackend(a netip.AddrPort) podBackend {
	b := podBackend{Port: words.Port(a.Port())}
	b.Addr.W = words.Of(a.Addr())
	return b
}

// translatable reports whether the programs can serve the service. The checksum of SCTP
// covers the ports, and the programs cannot compute it: kube-proxy serves such a service if
// a backend listens on another port.
func translatable(f service.Frontend, s service.Service) bool {
	return len(s.Backends) > 0 && (f.Protocol != unix.IPPROTO_SCTP ||
		!slices.ContainsFunc(s.Backends, func(b netip.AddrPort) bool { return b.Port() != f.Address.Port() }))
}

// SyncServices makes the services in the kernel equal to want.
func (d *Datapath) SyncServices(want map[service.Frontend]service.Service) error {
	have, err := entries[podFrontend, podService](d.maps.SlServices)
	if err != nil {
		return fmt.Errorf("list services: %w", err)
	}
	var removed []service.Frontend
	for k := range have {
		if _, ok := want[fromFrontend(k)]; !ok {
			removed = append(removed, fromFrontend(k))
		}
	}
	return d.ApplyServices(want, removed)
}

// ApplyServices adds or replaces services and removes others. Connections with a backend
// that stays continue; TCP connections with one that goes end when that backend ends them;
// other traffic gets another backend at once.
//
// It continues after a service that cannot be written: kube-proxy serves what is missing.
func (d *Datapath) ApplyServices(set map[service.Frontend]service.Service, removed []service.Frontend) error {
	d.tables.Lock()
	defer d.tables.Unlock()
	w := &writer{}
	gone := map[podFrontend][]podBackend{}
	for _, f := range removed {
		d.setService(w, toFrontend(f), service.Service{}, gone)
	}
	for f, s := range set {
		if !translatable(f, s) {
			s = service.Service{}
		}
		d.setService(w, toFrontend(f), s, gone)
	}
	return errors.Join(w.err(), d.forget(gone))
}

// setService writes backends before the count that makes them visible, and records which
// ones went.
func (d *Datapath) setService(w *writer, k podFrontend, s service.Service, gone map[podFrontend][]podBackend) {
	var old podService
	if err := d.maps.SlServices.Lookup(k, &old); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
		w.note(d.maps.SlServices, "read", k, err)
	}
	before := make([]podBackend, old.Backends)
	for i := range before {
		if err := d.maps.SlBackends.Lookup(podBackendKey{Frontend: k, Index: uint32(i)}, &before[i]); err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			w.note(d.maps.SlBackends, "read", k, err)
		}
	}
	after := make([]podBackend, len(s.Backends))
	for i, b := range s.Backends {
		after[i] = toBackend(b)
	}
	affinity := uint32(s.Affinity.Seconds())
	if old.Backends > 0 && slices.Equal(before, after) && affinity == old.Affinity {
		return
	}
	// Revision is random instead of the next one, because the old revision is gone while
	// there is no backend. An earlier choice, which TCP ports in reuse may still have, must
	// not look current.
	v := podService{Backends: uint32(len(after)), Affinity: affinity, Revision: rand.Uint32()}
	used := max(len(before), len(after))
	if !d.writeService(w, k, v, after) {
		after = nil
	}
	for i := len(after); i < used; i++ {
		w.remove(d.maps.SlBackends, podBackendKey{Frontend: k, Index: uint32(i)})
	}
	for _, b := range before {
		if !slices.Contains(after, b) {
			gone[k] = append(gone[k], b)
		}
	}
}

// writeService reports whether the service is now present with all its backends.
func (d *Datapath) writeService(w *writer, k podFrontend, v podService, backends []podBackend) bool {
	complete := true
	for i, b := range backends {
		complete = w.put(d.maps.SlBackends, podBackendKey{Frontend: k, Index: uint32(i)}, b) && complete
	}
	if !complete || v.Backends == 0 {
		w.remove(d.maps.SlServices, k)
		return false
	}
	return w.put(d.maps.SlServices, k, v)
}

// forget makes clients choose again if their backend went. TCP connections are left to
// their ends, which know best when they are over.
func (d *Datapath) forget(gone map[podFrontend][]podBackend) error {
	if len(gone) == 0 {
		return nil
	}
	choices, err1 := entries[podRequest, podChoice](d.maps.SlCtServices)
	affinities, err2 := entries[podClient, podChoice](d.maps.SlAffinities)
	if err := errors.Join(err1, err2); err != nil {
		return fmt.Errorf("list choices of backends: %w", err)
	}
	w := &writer{}
	for k, v := range choices {
		if k.Frontend.Proto != unix.IPPROTO_TCP && slices.Contains(gone[k.Frontend], v.Backend) {
			w.remove(d.maps.SlCtServices, k)
		}
	}
	for k, v := range affinities {
		if slices.Contains(gone[k.Frontend], v.Backend) {
			w.remove(d.maps.SlAffinities, k)
		}
	}
	return w.err()
}
