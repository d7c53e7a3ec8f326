// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"maps"
	"slices"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/overlay/service"
)

// serviceIndex knows which service has which frontends, and what of that the
// data path has not been told yet.
type serviceIndex struct {
	all     map[service.Frontend]service.Service
	owners  map[service.Frontend]kube.Ref
	of      map[kube.Ref][]service.Frontend // each service that was ever seen and still is
	changed map[service.Frontend]bool
	// backends is how many there are in all.
	backends int
}

func newServiceIndex() serviceIndex {
	return serviceIndex{
		all: map[service.Frontend]service.Service{}, owners: map[service.Frontend]kube.Ref{},
		of: map[kube.Ref][]service.Frontend{}, changed: map[service.Frontend]bool{},
	}
}

// set replaces the frontends of a service. An address that a new service got
// when the old one went may be heard of in either order: a frontend belongs to
// the one that was set last, and only that one takes it away.
func (b *serviceIndex) set(ref kube.Ref, now map[service.Frontend]service.Service) {
	for _, f := range b.of[ref] {
		if _, stays := now[f]; !stays && b.owners[f] == ref {
			b.backends -= len(b.all[f].Backends)
			delete(b.all, f)
			delete(b.owners, f)
			b.changed[f] = true
		}
	}
	for f, s := range now {
		old, known := b.all[f]
		if !known || old.Affinity != s.Affinity || !slices.Equal(old.Backends, s.Backends) {
			b.changed[f] = true
		}
		b.all[f], b.owners[f] = s, ref
		b.backends += len(s.Backends) - len(old.Backends)
	}
	b.of[ref] = slices.Collect(maps.Keys(now))
}

func (b *serviceIndex) drop(ref kube.Ref) {
	b.set(ref, nil)
	delete(b.of, ref)
}

// take returns what changed since the last call.
func (b *serviceIndex) take() (set map[service.Frontend]service.Service, removed []service.Frontend) {
	set = map[service.Frontend]service.Service{}
	for f := range b.changed {
		if s, ok := b.all[f]; ok {
			set[f] = s
		} else {
			removed = append(removed, f)
		}
	}
	clear(b.changed)
	return set, removed
}
