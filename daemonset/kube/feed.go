// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package kube

import (
	"context"
	"fmt"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// entry is what the informers store: the name of an API object and the value
// made of it. The rest of the object is dropped before it is ever stored.
type entry[T any] struct {
	metav1.ObjectMeta
	value T
}

// source says where the objects of one kind come from and what is kept of them.
type source[O runtime.Object, T any] struct {
	example  O
	selector string // field selector; empty for all
	list     func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch    func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// convert keeps what it can of a malformed object and says what is wrong.
	convert func(O) (T, error)
}

// feed is a running informer of one kind.
type feed[T any] struct {
	informer cache.SharedIndexInformer
}

// start runs the informer until ctx ends, in a goroutine of w. Any change of a
// value, or of the set of objects, makes w say so; since readers then look at
// the whole store, deletions need no handling of their own, seen or missed.
func start[O runtime.Object, T any](ctx context.Context, w *notifier, s source[O, T]) (*feed[T], error) {
	selected := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector = s.selector
		return o
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return s.list(ctx, selected(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return s.watch(ctx, selected(o))
		},
	}, w.client)
	informer := cache.NewSharedIndexInformer(lw, s.example, 0, cache.Indexers{})
	if err := informer.SetTransform(w.transform(s.toEntry)); err != nil {
		return nil, err
	}
	if _, err := informer.AddEventHandler(handler[T](w.notify)); err != nil {
		return nil, err
	}
	w.run(ctx, informer)
	return &feed[T]{informer: informer}, nil
}

func (s source[O, T]) toEntry(object any) (any, error) {
	o, ok := object.(O)
	if !ok {
		return object, nil // an entry already, or a tombstone of one
	}
	accessor, ok := any(o).(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("object %T has no metadata", object)
	}
	value, err := s.convert(o)
	return &entry[T]{
		ObjectMeta: metav1.ObjectMeta{
			Name: accessor.GetName(), Namespace: accessor.GetNamespace(),
			UID: accessor.GetUID(), ResourceVersion: accessor.GetResourceVersion(),
		},
		value: value,
	}, err
}

func handler[T any](notify func()) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(any) { notify() },
		UpdateFunc: func(before, after any) {
			a, okA := before.(*entry[T])
			b, okB := after.(*entry[T])
			if !okA || !okB || !reflect.DeepEqual(a.value, b.value) {
				notify()
			}
		},
		DeleteFunc: func(any) { notify() },
	}
}

// values returns what is stored, in no order.
func (f *feed[T]) values() []T {
	stored := f.informer.GetStore().List()
	out := make([]T, 0, len(stored))
	for _, object := range stored {
		if r, ok := object.(*entry[T]); ok {
			out = append(out, r.value)
		}
	}
	return out
}
