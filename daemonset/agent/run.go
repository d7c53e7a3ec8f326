// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/daemonset/checkpoint"
	"github.com/sealane/sealane/daemonset/enforce"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/daemonset/metrics"
	"github.com/sealane/sealane/daemonset/network"
	"github.com/sealane/sealane/daemonset/podserver"
	"github.com/sealane/sealane/daemonset/readiness"
	"github.com/sealane/sealane/daemonset/report"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/daemonset/trust"
	"github.com/sealane/sealane/internal/httpserver"
	"github.com/sealane/sealane/internal/ipproto"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/keymgr/nodenet"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/hostnet"
	"github.com/sealane/sealane/overlay/vxlan"
	"github.com/sealane/sealane/overlay/wireguard"
	"github.com/sealane/sealane/policy"
)

// Run is the daemon. It returns when ctx ends, or with the first fault that
// makes going on pointless. Either way the host stays as it is: packets go on.
func Run(ctx context.Context, cfg Config, log *slog.Logger) error {
	links, err := nl.Open()
	if err != nil {
		return err
	}
	defer links.Close()
	client, err := kube.NewClient(kube.Config{
		Kubeconfig: cfg.Kubeconfig, APIServer: cfg.APIServer, UserAgent: "sealaned", EventHost: cfg.NodeName, Namespace: cfg.Namespace, Logger: log,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	datapath, err := bpf.Load(bpf.Options{PinPath: cfg.BPFDir, Links: links, NodePorts: nodePorts(cfg), Leniency: leniency})
	if err != nil {
		return err
	}
	defer datapath.Close()
	d := &daemon{cfg: cfg, log: log, links: links, client: cluster.New(client), datapath: datapath}
	return d.run(ctx)
}

// leniency is for the connections that a node's pods have when Sealane comes to it.
const leniency = 10 * time.Minute

// nodePorts are those by which nodes speak to each other, which all have alike.
func nodePorts(cfg Config) []policy.Ports {
	lanes := policy.Ports{Protocol: ipproto.UDP, First: cfg.LanePort, Last: cfg.LanePort + 3}
	if cfg.Lane == overlay.VXLAN {
		lanes = policy.Ports{Protocol: ipproto.UDP, First: overlay.VXLANPort, Last: overlay.VXLANPort}
	}
	return []policy.Ports{lanes, {Protocol: ipproto.TCP, First: cfg.PairingPort, Last: cfg.PairingPort}}
}

// daemon holds what the parts are made of.
type daemon struct {
	cfg      Config
	log      *slog.Logger
	links    *nl.Handle
	client   *cluster.Client
	datapath *bpf.Datapath

	state      *readiness.State
	leases     *ipam.Allocator
	pods       *podserver.Server
	recalled   int // pods that an earlier daemon has connected
	checkpoint *checkpoint.Store
	keys       *network.Keys // nil: lanes are not encrypted
	network    *network.Loop
	host       *hostnet.Host
}

func (d *daemon) run(ctx context.Context) error {
	d.state = readiness.New(d.parts()...)
	group, ctx := errgroup.WithContext(ctx)
	watch, err := d.client.Watch(ctx, cluster.WatchConfig{Node: d.cfg.NodeName})
	if err != nil {
		return err
	}
	watched, err := objects.Watch(ctx, d.client.Client, objects.Config{Node: d.cfg.NodeName, Nodes: watch})
	if err != nil {
		return err
	}
	enforcer := d.makeEnforcer(ctx, watched, report.Policies{Node: d.cfg.NodeName, Events: d.client, Nodes: func() []kube.Node {
		snap, _ := watch.Snapshot()
		return snap.Nodes
	}})
	if err := d.makePods(enforcer); err != nil {
		return err
	}
	group.Go(func() error { return enforcer.Run(ctx) })
	lanes, err := d.makeNetwork(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	d.serveReports(ctx, group, d.reporter(lanes, enforcer), d.readers(watch))
	if d.keys != nil {
		d.serveKeys(ctx, group)
	}
	group.Go(func() error { return d.takeOver(ctx, watch) })
	group.Go(func() error { return d.repairLeases(ctx, watch) })
	group.Go(func() error { return d.serveObserver(ctx, watched) })
	group.Go(func() error { return d.serveCNI(ctx) })
	err = group.Wait()
	watched.Wait()
	watch.Wait()
	return err
}

func (d *daemon) reporter(lanes overlay.Backend, enforcer *enforce.Enforcer) *report.Reporter {
	return &report.Reporter{
		Name: d.cfg.NodeName, Version: d.cfg.Version, Encapsulation: d.cfg.Lane, PostQuantum: d.cfg.PostQuantum, Logger: d.log,
		Sources: report.Sources{
			View: d.network.View, Keys: d.keys, Lanes: lanes, Enforcer: enforcer, Leases: d.leases, QueuedDels: delQueue(d.cfg, d.log),
			Datapath: d.datapath, Netfilter: d.host, Links: d.links, State: d.state,
		},
	}
}

// serveReports answers operators' tools and probes, and tells of stopped leaks.
func (d *daemon) serveReports(ctx context.Context, group *errgroup.Group, r *report.Reporter, known func(netip.Addr) bool) {
	node := httpserver.Cached(time.Now, freshness, r.Node)
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), metrics.New(node))
	p := &pages{state: d.state, report: node, registry: seldom(registry), known: known, log: d.log}
	group.Go(func() error { return p.serve(ctx, d.cfg.MetricsAddress) })
	leaks := &report.Leaks{Node: d.id, Datapath: d.datapath, Links: d.links, Events: d.client, Logger: d.log}
	group.Go(func() error { return leaks.Run(ctx) })
}

// id is this node's, without UID before the first pass.
func (d *daemon) id() keymgr.NodeID {
	id := keymgr.NodeID{Name: d.cfg.NodeName}
	if v := d.network.View(); v != nil {
		id.UID = v.Self.UID
	}
	return id
}

// serveKeys keeps this node's identity fresh and published, and answers peers that
// ask for preshared keys.
func (d *daemon) serveKeys(ctx context.Context, group *errgroup.Group) {
	group.Go(func() error { return d.keys.Trust.Run(ctx) })
	group.Go(func() error { return d.keys.Rotator.Serve(ctx, d.cfg.PairingPort) })
	finding := func() report.Finding { return report.NodeKeyFinding(d.state, d.keys, d.network.View()) }
	status := report.NewNodeKey(d.keys.Trust.Identity().Node(), finding, d.client, d.log)
	group.Go(func() error { return status.Run(ctx) })
}

func (d *daemon) makeEnforcer(ctx context.Context, watched *objects.Objects, p report.Policies) *enforce.Enforcer {
	ask := objects.Reader{Client: d.client.Client}
	return enforce.New(enforce.Config{
		Node: d.cfg.NodeName, Feed: watched, Objects: watched, Datapath: d.datapath, Ask: ask.PodObject, Policies: ask.Policies,
		Announce: func(ctx context.Context, pods []kube.AddressedPod) error {
			return d.client.PublishAddresses(ctx, d.cfg.NodeName, pods)
		},
		Refused: watched.Refused, Logger: d.log,
		Malformed: func(policy *networkingv1.NetworkPolicy, err error) { p.Malformed(ctx, policy, err) },
		Report: func(err error) {
			d.state.Report(readiness.Policy, nil) // it has begun: what is missing is denied, and stops no pod
			if err != nil {
				d.state.Report(readiness.Policy, err)
				p.Incomplete(ctx, err)
			}
		},
	})
}

// takeOver runs the network loop, and replaces the programs of an earlier daemon as
// soon as ours find all that they need: policies first, without which they let
// nothing through, then lanes, then pods. After a start from disk, policies are what
// the earlier daemon has left, and its programs stay on the pods.
func (d *daemon) takeOver(ctx context.Context, watch *cluster.Watcher) error {
	group, ctx := errgroup.WithContext(ctx)
	fromDisk := d.checkpoint.FromDisk() != nil
	group.Go(func() error {
		if !fromDisk && d.state.Await(ctx, readiness.Policy) != nil {
			return nil
		}
		return d.network.Run(ctx, watch)
	})
	if fromDisk {
		news := make(chan struct{}, 1)
		watch.Notify(news)
		group.Go(func() error { return d.checkpoint.Confirm(ctx, news) })
	}
	group.Go(func() error {
		if err := d.state.Await(ctx, readiness.Policy, readiness.Network); err != nil {
			return nil
		}
		if err := errors.Join(d.pods.Restore(), d.datapath.Retire()); err != nil {
			return fmt.Errorf("restore pods: %w", err)
		}
		d.state.Report(readiness.Pods, nil)
		return nil
	})
	return group.Wait()
}

// repairEvery is how often leases are compared with the pods that there are, when
// nothing changes.
const repairEvery = 30 * time.Second

// snapshots is what repairLeases reads of the API server. *cluster.Watcher is one.
type snapshots interface {
	Snapshot() (cluster.Snapshot, bool)
	Notify(chan<- struct{})
}

// repairLeases releases the addresses of pods that are gone, whenever the API server
// has news, and every half minute. It rests while the network follows a snapshot from
// disk: nobody can say then which pods are gone.
func (d *daemon) repairLeases(ctx context.Context, watch snapshots) error {
	news := make(chan struct{}, 1)
	watch.Notify(news)
	tick := time.NewTicker(repairEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-news:
		case <-tick.C:
		}
		snap, synced := watch.Snapshot()
		if v := d.network.View(); synced && v != nil && !v.FromDisk {
			d.pods.Repair(snap.LocalPods)
		}
	}
}

func (d *daemon) parts() []readiness.Part {
	all := []readiness.Part{readiness.Node, readiness.Policy, readiness.Network, readiness.Pods}
	if d.cfg.Lane != overlay.VXLAN {
		all = append(all, readiness.Keys)
	}
	return all
}

func (d *daemon) makePods(enforcer podserver.Enforcer) (err error) {
	d.leases, err = ipam.Open(filepath.Join(d.cfg.StateDir, "ipam"), nil, ipam.Options{Logger: d.log})
	if err != nil {
		return fmt.Errorf("open leases: %w", err)
	}
	d.pods = podserver.New(podserver.Config{
		Leases: d.leases, Links: d.links, Datapath: d.datapath, Enforcer: enforcer, State: d.state, Logger: d.log,
	})
	known, err := d.datapath.Endpoints()
	if err == nil {
		d.recalled, err = d.pods.Recall(known)
	}
	if err != nil {
		return fmt.Errorf("recall pods: %w", err)
	}
	return nil
}

func (d *daemon) makeNetwork(ctx context.Context) (lanes overlay.Backend, err error) {
	if d.host, err = hostnet.New(d.links, d.log); err != nil {
		return nil, err
	}
	if d.checkpoint, err = d.begin(ctx); err != nil {
		return nil, err
	}
	if d.cfg.Lane != overlay.VXLAN {
		if d.keys, err = d.makeKeys(d.client, d.client); err != nil {
			return nil, err
		}
	}
	lanes, restarted, err := d.makeLanes(ctx)
	if err != nil {
		return nil, err
	}
	c := d.networkConfig()
	c.Datapath, c.Lanes, c.Restarted, c.Host = d.datapath, lanes, restarted, d.host
	d.network = network.New(c)
	return lanes, nil
}

// networkConfig is all of the network loop's configuration but what it writes to.
func (d *daemon) networkConfig() network.Config {
	return network.Config{
		Node: d.cfg.NodeName, Keys: d.keys, Checkpoint: d.checkpoint, Ranges: d.leases, Links: d.links, State: d.state, Logger: d.log,
		Rules: d.rules(),
		Plan: network.Plan{
			Encapsulation: d.cfg.Lane, AllowPlaintext: d.cfg.InsecurePlaintext, BasePort: d.cfg.LanePort, MTU: d.cfg.MTU, Uplinks: d.cfg.Uplinks,
			Ports: d.cfg.ports(),
		},
	}
}

// rules says which addresses and pod ranges nodes can have.
func (d *daemon) rules() nodenet.Rules {
	basis := d.checkpoint.Basis()
	return nodenet.Rules{NodeCIDRs: d.cfg.NodeCIDRs, PodCIDRs: basis.ClusterCIDRs, ServiceCIDRs: basis.ServiceCIDRs}
}

// makeLanes opens the backend of the configured encapsulation, and removes what an
// earlier configuration has left of the other. Restarted has a value when lanes have
// to be made again; nil: never.
func (d *daemon) makeLanes(ctx context.Context) (lanes overlay.Backend, restarted <-chan struct{}, err error) {
	o := wireguard.Options{Links: d.links, Socket: filepath.Join(d.cfg.RunDir, "wireguard.sock"), Logger: d.log}
	if d.keys != nil {
		o.Key, o.Preshared = d.keys.Trust.PrivateKey, d.keys.Rotator.Preshared
	}
	secure, err := wireguard.New(o)
	if err != nil {
		return nil, nil, err
	}
	plain := vxlan.New(d.links)
	if d.keys == nil {
		return plain, nil, errors.Join(secure.Clean(), secure.Close())
	}
	return secure, secure.Watch(ctx), plain.Clean()
}

// makeKeys opens this node's identity, and what makes its keys rotate.
func (d *daemon) makeKeys(cluster trust.Cluster, events trust.Events) (*network.Keys, error) {
	basis := d.checkpoint.Basis()
	t, err := trust.New(trust.Config{
		Dir: d.cfg.StateDir, Node: basis.Self.ID, TrustDomain: basis.TrustDomain,
		CertificateLifetime: d.cfg.CertificateLifetime, ExpiredGrace: d.cfg.ExpiredGrace, StrictContinuity: d.cfg.StrictContinuity, AcceptedRoots: d.cfg.AcceptedRoots,
		LanePort: d.cfg.LanePort, PostQuantum: d.cfg.PostQuantum, PairingPort: d.cfg.PairingPort, Rules: d.rules(),
		Cluster: cluster, Events: events, State: d.state, Logger: d.log,
	})
	if err != nil {
		return nil, err
	}
	r, err := rotate.New(rotate.Config{
		Identity: t.Identity(), Authenticate: t.Authenticate, Period: d.cfg.RotationPeriod, Mode: d.cfg.PostQuantum, Events: events, Logger: d.log,
	})
	if err != nil {
		return nil, err
	}
	return &network.Keys{Trust: t, Rotator: r}, nil
}
