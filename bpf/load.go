// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

import (
	"errors"
	"fmt"
	"path/filepath"
	"sync"
	"time"

	"github.com/cilium/ebpf"

	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/internal/times"
	"github.com/sealane/sealane/policy"
)

// Options say where the data path keeps its pins, and how large its maps are.
type Options struct {
	PinPath   string // folder on a bpffs, created if absent, e.g. /sys/fs/bpf/sealane
	Flows     uint32 // entries of the connection-tracking map; 0 means 262,144
	Endpoints uint32 // maximum number of pod addresses on this node; 0 means 4,096
	// NodePorts are the ports by which nodes speak to each other: nothing that a pod
	// sends to one of them passes, but to another pod. At most 8 ranges.
	NodePorts []policy.Ports
	// Leniency is how long connections that are under way pass if policy allows them from
	// either end, where there are no flows of an earlier daemon. 0: not at all.
	Leniency time.Duration
	Links    *nl.Handle // attaches programs on kernels without tcx (before 6.6)
}

// Datapath holds the loaded programs and the maps that they share.
type Datapath struct {
	pins  string
	links *nl.Handle
	tcx   bool
	// inherited: see Inherited.
	inherited bool

	programs map[string]*ebpf.Program
	maps     podMaps

	tables sync.Mutex // of policies and services: one writer at a time
	policy encoded
}

// Load verifies and loads the programs, and opens the pinned maps or creates them. It
// attaches nothing, and what an earlier daemon attached continues to run.
//
// It fails with [ErrNotBPFFS] when PinPath cannot hold pins, and with the verifier's log
// when the kernel refuses a program.
func Load(o Options) (*Datapath, error) {
	if len(o.NodePorts) > maxNodePorts {
		return nil, fmt.Errorf("%d ranges of ports of nodes: use at most %d", len(o.NodePorts), maxNodePorts)
	}
	d := &Datapath{pins: filepath.Join(o.PinPath, layout), links: o.Links, programs: map[string]*ebpf.Program{}}
	if err := d.makePins(o.PinPath); err != nil {
		return nil, err
	}
	var err error
	if d.inherited, err = d.inherits(); err != nil {
		return nil, err
	}
	for _, load := range []func() (*ebpf.CollectionSpec, error){loadPod, loadLane, loadUplink} {
		if err := d.loadCollection(load, o); err != nil {
			return nil, errors.Join(err, d.Close())
		}
	}
	// A watcher of an earlier daemon that was killed no longer watches.
	if err := errors.Join(d.recall(), d.setWatched(0)); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	if d.tcx, err = haveTCX(d.programs[uplinkProgUplinkIngressL3]); err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return d, nil
}

func (d *Datapath) loadCollection(load func() (*ebpf.CollectionSpec, error), o Options) error {
	spec, err := load()
	if err != nil {
		return fmt.Errorf("read programs: %w", err)
	}
	resize(spec, podMapSlFlows, o.Flows)
	resize(spec, podMapSlEndpoints, o.Endpoints)
	if v := spec.Variables[podVarNodePorts]; v != nil {
		var all [maxNodePorts]struct {
			First, Last uint16
			Protocol    uint32 // 0: none
		}
		for i, p := range o.NodePorts {
			all[i].First, all[i].Last, all[i].Protocol = p.First, p.Last, uint32(p.Protocol)
		}
		if err := v.Set(all); err != nil {
			return fmt.Errorf("set the ports of nodes: %w", err)
		}
	}
	if v := spec.Variables[podVarLenientUntil]; v != nil && o.Leniency > 0 && !d.inherited {
		boot, err := times.Boot()
		if err != nil {
			return err
		}
		if err := v.Set(uint32((time.Since(boot) + o.Leniency).Seconds())); err != nil {
			return fmt.Errorf("set the time of leniency: %w", err)
		}
	}
	coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{Maps: ebpf.MapOptions{PinPath: d.pins}})
	if err != nil {
		return fmt.Errorf("load programs: %w", err)
	}
	defer coll.Close() // closes the rest: maps that another collection supplied already
	for name := range spec.Programs {
		d.programs[name] = coll.DetachProgram(name)
	}
	if d.maps.SlFlows != nil {
		return nil
	}
	// The first collection is that of the pods' programs, which know every map.
	if err := coll.Assign(&d.maps); err != nil {
		return fmt.Errorf("open maps: %w", err)
	}
	return nil
}

const maxNodePorts = 8 // NODE_PORTS in src/pod.c

func resize(spec *ebpf.CollectionSpec, name string, entries uint32) {
	if m := spec.Maps[name]; m != nil && entries != 0 {
		m.MaxEntries = entries
	}
}

// Close releases the daemon's references. Attached and pinned programs continue to run.
func (d *Datapath) Close() error {
	var errs []error
	if d.maps.SlFlows != nil {
		errs = append(errs, d.maps.Close())
	}
	for _, p := range d.programs {
		errs = append(errs, p.Close()) // closing nil is fine
	}
	return errors.Join(errs...)
}
