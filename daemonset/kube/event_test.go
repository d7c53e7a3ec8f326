// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clienttesting "k8s.io/client-go/testing"
)

func TestEventsAreDeduplicatedAndBounded(t *testing.T) {
	ctx, api := testContext(t), newFake(t)
	api.Client = New(api.server.Conn, Config{EventHost: "n0"})
	t.Cleanup(api.Client.Close)
	created := make(chan *corev1.Event, 100)
	patched := make(chan struct{}, 100)
	api.core.PrependReactor("create", "events", func(a clienttesting.Action) (bool, runtime.Object, error) {
		event := a.(clienttesting.CreateAction).GetObject().(*corev1.Event)
		created <- event
		return true, event, nil
	})
	api.core.PrependReactor("patch", "events", func(clienttesting.Action) (bool, runtime.Object, error) {
		patched <- struct{}{}
		return true, &corev1.Event{}, nil
	})
	refusal := EventSpec{
		Kind: KindNode, Name: "n1", UID: "u1", Type: EventWarning, Reason: "StatementRefused", Message: strings.Repeat("x", 5000),
	}
	for range 3 {
		api.Event(ctx, refusal)
	}
	stopped, cancel := context.WithCancel(ctx)
	cancel()
	refusal.Reason = "AfterTheEnd"
	api.Event(stopped, refusal)

	event := <-created
	if event.InvolvedObject.Name != "n1" || event.InvolvedObject.Kind != "Node" || event.Type != "Warning" ||
		event.Source.Component != "sealane" || event.Source.Host != "n0" || event.Namespace != "default" || len(event.Message) != maxEventMessage {
		t.Errorf("got event %+v", event)
	}
	<-patched
	<-patched
	if len(created) != 0 {
		t.Errorf("repetition made another event: %+v", <-created)
	}
}
