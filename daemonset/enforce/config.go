// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package enforce

import (
	"cmp"
	"context"
	"log/slog"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/objects"
	"github.com/sealane/sealane/overlay/service"
	"github.com/sealane/sealane/policy"
)

// Feed says what changed. *objects.Objects is one.
type Feed interface {
	// Changed has a value when Take or Synced may say something new.
	Changed() <-chan struct{}
	// Take names each changed object once, and when the first change arrived.
	Take() ([]kube.Ref, time.Time)
	// Synced reports whether Take has named all there was at the start.
	Synced() bool
	// Zone is of this node; a change of it is one of the Node that has the name.
	Zone() string
}

// Objects has the present state of what Feed names. *objects.Objects is one.
type Objects interface {
	Pod(namespace, name string) (objects.Pod, bool)
	Namespace(name string) (objects.Namespace, bool)
	Policy(namespace, name string) (*networkingv1.NetworkPolicy, bool)
	Service(namespace, name string) (*corev1.Service, []*discoveryv1.EndpointSlice, bool)
}

// Datapath is where policies and services are carried out. *bpf.Datapath is one.
// What it cannot write it denies; its errors say what.
type Datapath interface {
	SyncPolicy(policy.Tables) error
	ApplyPolicy(policy.Changes) error
	SyncServices(map[service.Frontend]service.Service) error
	ApplyServices(set map[service.Frontend]service.Service, removed []service.Frontend) error
}

// Config is what an Enforcer is made of.
type Config struct {
	// Node is the name of this node.
	Node     string
	Feed     Feed
	Objects  Objects
	Datapath Datapath
	// Ask asks the API server for a pod that the watch has not brought in time.
	// Nil: only the watch brings pods.
	Ask func(ctx context.Context, namespace, name string) (objects.Pod, error)
	// Policies asks the API server for the policies of a namespace: a pod waits for
	// those that were there before it, and that the watch has not brought yet. While
	// the API server is away, and if Policies is nil, the watch's are all.
	Policies func(ctx context.Context, namespace string) ([]*networkingv1.NetworkPolicy, error)
	// Announce tells the other nodes of all the pods of this node whose status does
	// not tell their addresses yet, each time in place of those before. Nil: they
	// learn it by the status alone.
	Announce func(context.Context, []kube.AddressedPod) error
	// Refused counts the pods that claim an address that is not theirs, for
	// Status; nil: they are not counted.
	Refused func() int
	// Report hears what is wrong, and nil when all is well again, at each change.
	// It must not wait. Nil: nobody hears.
	Report func(error)
	// Malformed hears of each policy of which a part cannot be understood, whenever
	// it is new or has changed. It must not wait. Nil: nobody hears.
	Malformed func(*networkingv1.NetworkPolicy, error)
	// Logger gets what operators should see; nil means to drop it.
	Logger *slog.Logger
	// AskAfter is how long the watch has before Ask; 0 means a second.
	AskAfter time.Duration
	// RetryAfter is the first pause after an error of the data path, which
	// doubles up to half a minute; 0 means 100 ms.
	RetryAfter time.Duration
}

const maxRetry = 30 * time.Second

func (cfg Config) withDefaults() Config {
	if cfg.Logger == nil {
		cfg.Logger = slog.New(slog.DiscardHandler)
	}
	if cfg.Refused == nil {
		cfg.Refused = func() int { return 0 }
	}
	if cfg.Malformed == nil {
		cfg.Malformed = func(*networkingv1.NetworkPolicy, error) {}
	}
	if cfg.Report == nil {
		cfg.Report = func(error) {}
	}
	cfg.AskAfter = cmp.Or(cfg.AskAfter, time.Second)
	cfg.RetryAfter = cmp.Or(cfg.RetryAfter, 100*time.Millisecond)
	return cfg
}
