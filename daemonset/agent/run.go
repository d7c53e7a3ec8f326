// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agent

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/bpf"
	"github.com/sealane/sealane/cni/ipam"
	"github.com/sealane/sealane/cni/podnet"
	"github.com/sealane/sealane/daemonset/enforce"
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/metrics"
	"github.com/sealane/sealane/daemonset/rotate"
	"github.com/sealane/sealane/internal/nl"
	"github.com/sealane/sealane/keymgr"
	"github.com/sealane/sealane/overlay"
	"github.com/sealane/sealane/overlay/hostnet"
	"github.com/sealane/sealane/overlay/vxlan"
	"github.com/sealane/sealane/overlay/wireguard"
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
		Kubeconfig: cfg.Kubeconfig, APIServer: cfg.APIServer, UserAgent: "sealaned", Namespace: cfg.Namespace, Logger: log,
	})
	if err != nil {
		return err
	}
	defer client.Close()
	datapath, err := bpf.Load(bpf.Options{PinPath: cfg.BPFDir, Links: links})
	if err != nil {
		return err
	}
	defer datapath.Close()
	d := &daemon{cfg: cfg, log: log, links: links, client: client, datapath: datapath}
	return d.run(ctx)
}

// daemon holds what the parts are made of.
type daemon struct {
	cfg      Config
	log      *slog.Logger
	links    *nl.Handle
	client   *kube.Client
	datapath *bpf.Datapath
	state    *state
	network  *network
	pods     *pods
}

func (d *daemon) run(ctx context.Context) error {
	d.state = newState(d.parts()...)
	group, ctx := errgroup.WithContext(ctx)
	watch, err := d.client.Watch(ctx, kube.WatchConfig{Node: d.cfg.NodeName})
	if err != nil {
		return err
	}
	objects, err := d.client.WatchObjects(ctx, kube.ObjectsConfig{Node: d.cfg.NodeName, Nodes: watch})
	if err != nil {
		return err
	}
	enforcer := d.makeEnforcer(ctx, objects, alarms{node: d.cfg.NodeName, events: d.client, nodes: func() []kube.Node {
		snap, _ := watch.Snapshot()
		return snap.Nodes
	}})
	if err := d.makePods(enforcer); err != nil {
		return err
	}
	group.Go(func() error { return enforcer.Run(ctx) })
	if err := d.makeNetwork(ctx); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	r := &reports{cfg: d.cfg, network: d.network, enforcer: enforcer, datapath: d.datapath, links: d.links, log: d.log}
	registry := prometheus.NewRegistry()
	registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), metrics.New(r.node))
	p := &pages{state: d.state, report: r.node, registry: registry, log: d.log}
	group.Go(func() error { return p.serve(ctx, d.cfg.MetricsAddress) })
	group.Go(func() error { return d.takeOver(ctx, watch) })
	if d.network.trust != nil {
		group.Go(func() error { return d.network.trust.run(ctx) })
		a := &announcer{node: d.network.trust.identity.Node(), find: d.network.finding, to: d.client, log: d.log, clock: time.Now}
		group.Go(func() error { return a.run(ctx) })
		group.Go(func() error { return d.network.rotator.Serve(ctx, d.cfg.PairingPort) })
	}
	group.Go(func() error { return r.watchLeaks(ctx, d.client) })
	group.Go(func() error { return d.serveObserver(ctx, objects) })
	group.Go(func() error { return d.serveCNI(ctx) })
	err = group.Wait()
	objects.Wait()
	watch.Wait()
	return err
}

func (d *daemon) makeEnforcer(ctx context.Context, objects *kube.Objects, a alarms) *enforce.Enforcer {
	return enforce.New(enforce.Config{
		Node: d.cfg.NodeName, Feed: objects, Objects: objects, Datapath: d.datapath, Ask: d.client.PodObject, Policies: d.client.Policies,
		Announce: func(ctx context.Context, pods []kube.AddressedPod) error {
			return d.client.PublishAddresses(ctx, d.cfg.NodeName, pods)
		},
		Refused: objects.Refused, Logger: d.log,
		Malformed: func(p *networkingv1.NetworkPolicy, err error) { a.malformed(ctx, p, err) },
		Report: func(err error) {
			d.state.report(partPolicy, nil) // it has begun: what is missing is denied, and stops no pod
			if err != nil {
				d.state.report(partPolicy, err)
				a.incomplete(ctx, err)
			}
		},
	})
}

// takeOver runs the network, and replaces the programs of an earlier daemon as
// soon as ours find all that they need: policies first, without which they let
// nothing through, then lanes, then pods. After a start from disk, policies are what
// the earlier daemon has left, and its programs stay on the pods.
func (d *daemon) takeOver(ctx context.Context, watch *kube.Watcher) error {
	group, ctx := errgroup.WithContext(ctx)
	fromDisk := d.network.keeper.FromDisk() != nil
	group.Go(func() error {
		if !fromDisk && d.state.await(ctx, partPolicy) != nil {
			return nil
		}
		return d.network.run(ctx, watch)
	})
	if fromDisk {
		news := make(chan struct{}, 1)
		watch.Notify(news)
		group.Go(func() error { return d.network.keeper.Confirm(ctx, news) })
	}
	group.Go(func() error {
		if err := d.state.await(ctx, partPolicy, partNetwork); err != nil {
			return nil
		}
		if err := errors.Join(d.pods.restore(), d.datapath.Retire()); err != nil {
			return fmt.Errorf("restore pods: %w", err)
		}
		d.state.report(partPods, nil)
		return nil
	})
	return group.Wait()
}

func (d *daemon) parts() []part {
	all := []part{partNode, partPolicy, partNetwork, partPods}
	if d.cfg.Lane != overlay.VXLAN {
		all = append(all, partKeys)
	}
	return all
}

func (d *daemon) makePods(g guards) error {
	leases, err := ipam.Open(filepath.Join(d.cfg.StateDir, "ipam"), nil, ipam.Options{Logger: d.log})
	if err != nil {
		return fmt.Errorf("open leases: %w", err)
	}
	d.pods = &pods{
		leases: leases, links: d.links, remover: podnet.NewRemover(d.links), datapath: d.datapath, guards: g, state: d.state, log: d.log,
	}
	if err := d.pods.recall(d.datapath); err != nil {
		return fmt.Errorf("recall pods: %w", err)
	}
	return nil
}

func (d *daemon) makeNetwork(ctx context.Context) error {
	host, err := hostnet.New(d.links, d.log)
	if err != nil {
		return err
	}
	d.network = &network{
		cfg: d.cfg, leases: d.pods.leases, pods: d.pods, links: d.links, datapath: d.datapath, host: host, state: d.state, log: d.log,
	}
	if d.network.keeper, err = d.begin(ctx); err != nil {
		return err
	}
	if d.cfg.Lane != overlay.VXLAN {
		if d.network.trust, err = d.makeTrust(); err != nil {
			return err
		}
		t := d.network.trust
		d.network.rotator, err = rotate.New(rotate.Config{
			Identity: t.identity, Authenticate: t.verifier.Authenticate, Period: d.cfg.RotationPeriod, Mode: d.cfg.PostQuantum,
			Events: t.events, Logger: d.log,
		})
		if err != nil {
			return err
		}
	}
	return d.makeLanes(ctx)
}

// makeLanes opens the backend of the configured kind, and removes lanes of the
// other kind that an earlier configuration has left.
func (d *daemon) makeLanes(ctx context.Context) error {
	o := wireguard.Options{Links: d.links, Socket: filepath.Join(d.cfg.RunDir, "wireguard.sock"), Logger: d.log}
	if d.network.trust != nil {
		o.Key, o.Preshared = d.network.trust.privateKey, d.network.rotator.Preshared
	}
	secure, err := wireguard.New(o)
	if err != nil {
		return err
	}
	plain := vxlan.New(d.links)
	if d.cfg.Lane == overlay.VXLAN {
		d.network.lanes = plain
		return errors.Join(secure.Clean(), secure.Close())
	}
	d.network.lanes, d.network.restarted = secure, secure.Watch(ctx)
	return plain.Clean()
}

func (d *daemon) makeTrust() (*trust, error) {
	basis := d.network.keeper.Basis()
	identity, err := keymgr.OpenIdentity(keymgr.IdentityConfig{Dir: filepath.Join(d.cfg.StateDir, "keys"), Node: basis.Self.ID, TrustDomain: basis.TrustDomain})
	if err != nil {
		return nil, err
	}
	marks := keymgr.NewFileMarks(filepath.Join(d.cfg.StateDir, "peers"))
	v, err := keymgr.NewVerifier(keymgr.VerifierConfig{
		TrustDomain: basis.TrustDomain, Self: basis.Self.ID, Marks: marks, Revocations: marks,
		Grace: d.cfg.ExpiredGrace, StrictContinuity: d.cfg.StrictContinuity, PSK: d.cfg.PostQuantum,
	})
	if err != nil {
		return nil, err
	}
	restored, err := restorePeers(identity, v)
	if err != nil {
		d.log.Warn("some peers start without their last statement", "error", err)
	}
	return &trust{
		cfg: d.cfg, identity: identity, verifier: v, docket: &docket{verifier: v}, judge: newJudge(v, d.client, d.log, restored), cluster: d.client, events: d.client,
		state: d.state, log: d.log, clock: time.Now, rest: identityCheck, changed: make(chan struct{}, 1), poked: make(chan struct{}, 1),
	}, nil
}

// restorePeers verifies what an earlier daemon had accepted, so that a NodeKey
// that was spoilt meanwhile cuts nobody off.
func restorePeers(identity *keymgr.Identity, v *keymgr.Verifier) ([]keymgr.Peer, error) {
	bundle, err := identity.Bundle()
	if err != nil || len(bundle) == 0 {
		return nil, err
	}
	if err := v.SetRoots(bundle); err != nil {
		return nil, err
	}
	return v.Restore()
}
