// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package informer

import (
	"context"
	"fmt"
	"net/netip"
	"reflect"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/tools/cache"
)

// Entry is what informers store: the name of an API object and the value made of it. The
// rest of the object is dropped before it is ever stored.
type Entry[T any] struct {
	metav1.ObjectMeta
	Value T
}

// Source says where the objects of one kind come from and what is kept of them.
type Source[O runtime.Object, T any] struct {
	Example  O
	Selector string // field selector; empty for all
	Labels   string // label selector; empty for all
	Optional bool   // the Notifier is in step without it
	List     func(context.Context, metav1.ListOptions) (runtime.Object, error)
	Watch    func(context.Context, metav1.ListOptions) (watch.Interface, error)
	// Convert keeps what it can of a malformed object and says what is wrong.
	Convert func(O) (T, error)
	// News is called for each value that is new (before is nil), has changed, or has
	// gone (after is nil); nil if it is enough to know that anything changed.
	News     func(before, after *Entry[T])
	Indexers cache.Indexers
}

// Feed is a running informer of one kind.
type Feed[T any] struct {
	informer cache.SharedIndexInformer
}

// Start runs an informer until ctx ends, in a goroutine of n. Any change of a value, or of
// the set of objects, is a signal of n; since readers then look at the whole store,
// deletions need no handling of their own, seen or missed.
func Start[O runtime.Object, T any](ctx context.Context, n *Notifier, s Source[O, T]) (*Feed[T], error) {
	selected := func(o metav1.ListOptions) metav1.ListOptions {
		o.FieldSelector, o.LabelSelector = s.Selector, s.Labels
		return o
	}
	lw := cache.ToListWatcherWithWatchListSemantics(&cache.ListWatch{
		ListWithContextFunc: func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
			return s.List(ctx, selected(o))
		},
		WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) {
			return s.Watch(ctx, selected(o))
		},
	}, n.client)
	informer := cache.NewSharedIndexInformer(lw, s.Example, 0, s.Indexers)
	if err := informer.SetTransform(n.transform(s.ToEntry)); err != nil {
		return nil, err
	}
	f := &Feed[T]{informer: informer}
	synced, err := f.listen(n, s.News)
	if err != nil {
		return nil, err
	}
	if !s.Optional {
		n.await(ctx, synced)
	}
	n.running.Go(func() { informer.RunWithContext(ctx) })
	return f, nil
}

// Follow signals n, too, whenever a value changes, after it has called news. n is in step
// when news was called for all of the first list.
func (f *Feed[T]) Follow(ctx context.Context, n *Notifier, news func(before, after *Entry[T])) error {
	synced, err := f.listen(n, news)
	if err != nil {
		return err
	}
	n.await(ctx, synced)
	return nil
}

// listen does the same as Follow and leaves the waiting to the caller.
func (f *Feed[T]) listen(n *Notifier, news func(before, after *Entry[T])) (cache.DoneChecker, error) {
	registration, err := f.informer.AddEventHandler(Handler(func(before, after *Entry[T]) {
		if news != nil {
			news(before, after)
		}
		n.notify()
	}))
	if err != nil {
		return nil, err
	}
	return registration.HasSyncedChecker(), nil
}

// ToEntry makes an Entry of an object, as it is stored.
func (s Source[O, T]) ToEntry(object any) (any, error) {
	o, ok := object.(O)
	if !ok {
		return object, nil // an entry already, or a tombstone of one
	}
	accessor, ok := any(o).(metav1.Object)
	if !ok {
		return nil, fmt.Errorf("object %T has no metadata", object)
	}
	value, err := s.Convert(o)
	return &Entry[T]{
		ObjectMeta: metav1.ObjectMeta{
			Name: accessor.GetName(), Namespace: accessor.GetNamespace(),
			UID: accessor.GetUID(), ResourceVersion: accessor.GetResourceVersion(),
		},
		Value: value,
	}, err
}

// Handler calls news whenever a value changes, and not when only the rest of its object
// does.
func Handler[T any](news func(before, after *Entry[T])) cache.ResourceEventHandler {
	return cache.ResourceEventHandlerFuncs{
		AddFunc: func(added any) {
			after, _ := added.(*Entry[T])
			news(nil, after)
		},
		UpdateFunc: func(was, is any) {
			before, okBefore := was.(*Entry[T])
			after, okAfter := is.(*Entry[T])
			if !okBefore || !okAfter || !reflect.DeepEqual(before.Value, after.Value) {
				news(before, after)
			}
		},
		DeleteFunc: func(deleted any) {
			if unseen, ok := deleted.(cache.DeletedFinalStateUnknown); ok {
				deleted = unseen.Obj
			}
			before, _ := deleted.(*Entry[T])
			news(before, nil)
		},
	}
}

// Get returns the value of one object.
func (f *Feed[T]) Get(namespace, name string) (value T, ok bool) {
	object, _, err := f.informer.GetStore().GetByKey(cache.NewObjectName(namespace, name).String())
	if err != nil {
		return value, false // no store of an informer answers so
	}
	found, ok := object.(*Entry[T])
	if ok {
		value = found.Value
	}
	return value, ok
}

// By returns the entries that an index lists under a value, in no order.
func (f *Feed[T]) By(index, value string) []*Entry[T] {
	objects, err := f.informer.GetIndexer().ByIndex(index, value)
	if err != nil {
		return nil // there is no such index
	}
	out := make([]*Entry[T], 0, len(objects))
	for _, object := range objects {
		if found, ok := object.(*Entry[T]); ok {
			out = append(out, found)
		}
	}
	return out
}

// Indexed makes an index over entries; an empty key is not listed.
func Indexed[T any](key func(*Entry[T]) string) cache.IndexFunc {
	return func(object any) ([]string, error) {
		if found, ok := object.(*Entry[T]); ok {
			if k := key(found); k != "" {
				return []string{k}, nil
			}
		}
		return nil, nil
	}
}

// Values returns what is stored, in no order.
func (f *Feed[T]) Values() []T {
	stored := f.informer.GetStore().List()
	out := make([]T, 0, len(stored))
	for _, object := range stored {
		if r, ok := object.(*Entry[T]); ok {
			out = append(out, r.Value)
		}
	}
	return out
}

// ByAddress is the name of an index by every address of a value.
const ByAddress = "address"

// ByEach makes an index by every address of a value.
func ByEach[T any](addresses func(T) []netip.Addr) cache.IndexFunc {
	return func(object any) ([]string, error) {
		found, ok := object.(*Entry[T])
		if !ok {
			return nil, nil
		}
		var keys []string
		for _, a := range addresses(found.Value) {
			keys = append(keys, a.String())
		}
		return keys, nil
	}
}

// AsObject makes a list of one kind a list of any.
func AsObject[L runtime.Object](list func(context.Context, metav1.ListOptions) (L, error)) func(context.Context, metav1.ListOptions) (runtime.Object, error) {
	return func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return list(ctx, o) }
}
