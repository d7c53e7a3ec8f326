// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package conn

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/go-logr/logr"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/klog/v2"
)

// Conn is a connection to one API server.
type Conn struct {
	Resources
	Core kubernetes.Interface
	Rest *rest.Config // for streams; nil in tests without a server
	// Namespace is that of Sealane's own objects.
	Namespace string
	Log       *slog.Logger
}

// Open makes the clients. It does not connect yet. The caller sets Namespace and Log.
func Open(base *rest.Config) (Conn, error) {
	forCore := rest.CopyConfig(base)
	forCore.ContentType = "application/vnd.kubernetes.protobuf"
	forCore.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	core, err := kubernetes.NewForConfig(forCore)
	if err != nil {
		return Conn{}, fmt.Errorf("make api client: %w", err)
	}
	resources, err := newResources(base)
	if err != nil {
		return Conn{}, fmt.Errorf("make api client for sealane.io: %w", err)
	}
	return Conn{Resources: resources, Core: core, Rest: base}, nil
}

// WithLog makes client-go log to the connection's logger in calls with the returned
// context, so that no process-wide logger has to be replaced.
func (c Conn) WithLog(ctx context.Context) context.Context {
	return klog.NewContext(ctx, logr.FromSlogHandler(c.Log.Handler()))
}
