// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	corev1client "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/record"
	"k8s.io/klog/v2"
)

// maxEventMessage keeps an Event readable, in bytes.
const maxEventMessage = 1024

// EventType says how bad it is.
type EventType string

// The types that Kubernetes knows.
const (
	EventNormal  EventType = "Normal"
	EventWarning EventType = "Warning"
)

// EventSpec is something that an operator should know.
type EventSpec struct {
	Kind      ObjectKind
	Namespace string // empty for nodes and certificate requests
	Name, UID string
	Type      EventType
	Reason    string // one word in CamelCase, of a fixed list
	Message   string
}

// Event records an Event, in the background and at most: repeated ones are
// counted in one object, floods are cut, and what the API server does not take
// is dropped. After the end of ctx it records nothing.
func (c *Client) Event(ctx context.Context, e EventSpec) {
	if ctx.Err() != nil {
		return
	}
	c.events.recorder.Event(e.object(), string(e.Type), e.Reason, e.Message[:min(len(e.Message), maxEventMessage)])
}

func (e EventSpec) object() runtime.Object {
	version := "v1"
	switch e.Kind {
	case KindRequest:
		version = "certificates.k8s.io/v1"
	case KindPolicy:
		version = "networking.k8s.io/v1"
	}
	return &corev1.ObjectReference{
		APIVersion: version, Kind: string(e.Kind), Namespace: e.Namespace, Name: e.Name, UID: types.UID(e.UID),
	}
}

type eventRecorder struct {
	broadcaster record.EventBroadcaster
	recorder    record.EventRecorder
}

func newEventRecorder(core kubernetes.Interface, cfg Config) *eventRecorder {
	logger := logr.FromSlogHandler(cfg.Logger.Handler())
	broadcaster := record.NewBroadcaster(record.WithContext(klog.NewContext(context.Background(), logger)))
	broadcaster.StartRecordingToSink(&corev1client.EventSinkImpl{Interface: core.CoreV1().Events(metav1.NamespaceAll)})
	source := corev1.EventSource{Component: cfg.UserAgent, Host: cfg.EventHost}
	recorder := broadcaster.NewRecorder(runtime.NewScheme(), source).WithLogger(logger)
	return &eventRecorder{broadcaster: broadcaster, recorder: recorder}
}

func (r *eventRecorder) close() { r.broadcaster.Shutdown() }
