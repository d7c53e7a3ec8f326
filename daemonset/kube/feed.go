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
	labels   string // label selector; empty for all
	optional bool   // the watch is in step without it
	list     func(context.Context, metav1.ListOptions) (runtime.Object, error)
	watch    func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// convert keeps what it can of a malformed object and says what is wrong.
	convert func(O) (T, error)
	// news hears of each value that is new (before is nil), has changed, or has
	// gone (after is nil). Nil: that anything changed is enough to know.
	news     func(before, after *entry[T])
	indexers cache.Indexers
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
		o.FieldSelector, o.LabelSelector = s.selector, s.labels
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
	informer := cache.NewSharedIndexInformer(lw, s.example, 0, s.indexers)
	if err := informer.SetTransform(w.transform(s.toEntry)); err != nil {
		return nil, err
	}
	f := &feed[T]{informer: informer}
	synced, err := f.listen(w, s.news)
	if err != nil {
		return nil, err
	}
	if !s.optional {
		w.await(ctx, synced)
	}
	w.running.Go(func() { informer.RunWithContext(ctx) })
	return f, nil
}

// follow makes w say so whenever a value changes, after news has heard of it.
// w is in step when news has heard of the first list.
func (f *feed[T]) follow(ctx context.Context, w *notifier, news func(before, after *entry[T])) error {
	synced, err := f.listen(w, news)
	if err != nil {
		return err
	}
	w.await(ctx, synced)
	return nil
}

// listen does the same and leaves the waiting to the caller.
func (f *feed[T]) listen(w *notifier, news func(before, after *entry[T])) (cache.DoneChecker, error) {
	registration, err := f.informer.AddEventHandler(handler(func(before, after *entry[T]) {
		if news != nil {
			news(before, after)
		}
		w.notify()
	}))
	if err != nil {
		return nil, err
	}
	return registration.HasSyncedChecker(), nil
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

func handler[T any](news func(before, after *entry[T])) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(added any) {
			after, _ := added.(*entry[T])
			news(nil, after)
		},
		UpdateFunc: func(was, is any) {
			before, okBefore := was.(*entry[T])
			after, okAfter := is.(*entry[T])
			if !okBefore || !okAfter || !reflect.DeepEqual(before.value, after.value) {
				news(before, after)
			}
		},
		DeleteFunc: func(deleted any) {
			if unseen, ok := deleted.(cache.DeletedFinalStateUnknown); ok {
				deleted = unseen.Obj
			}
			before, _ := deleted.(*entry[T])
			news(before, nil)
		},
	}
}

// get returns the value of one object.
func (f *feed[T]) get(namespace, name string) (value T, ok bool) {
	object, _, err := f.informer.GetStore().GetByKey(cache.NewObjectName(namespace, name).String())
	if err != nil {
		return value, false // no store of an informer answers so
	}
	found, ok := object.(*entry[T])
	if ok {
		value = found.value
	}
	return value, ok
}

// by returns the entries that an index lists under a value, in no order.
func (f *feed[T]) by(index, value string) []*entry[T] {
	objects, err := f.informer.GetIndexer().ByIndex(index, value)
	if err != nil {
		return nil // there is no such index
	}
	out := make([]*entry[T], 0, len(objects))
	for _, object := range objects {
		if found, ok := object.(*entry[T]); ok {
			out = append(out, found)
		}
	}
	return out
}

// indexed makes an index over entries; an empty key is not listed.
func indexed[T any](key func(*entry[T]) string) cache.IndexFunc {
	return func(object any) ([]string, error) {
		if found, ok := object.(*entry[T]); ok {
			if k := key(found); k != "" {
				return []string{k}, nil
			}
		}
		return nil, nil
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
