// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"

	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/conn"
	"github.com/sealane/sealane/daemonset/kube/internal/informer"
)

// RevocationRecord is what the ConfigMap of revocations holds.
type RevocationRecord struct {
	List []byte // signed revocation list, JSON
	CRL  []byte // X.509 CRL, DER
	// Version is the ConfigMap's resource version, "" if there is none.
	Version string
}

// recordOf gives the zero value for any other ConfigMap.
func recordOf(o *corev1.ConfigMap) RevocationRecord {
	if o.Name != RevocationConfigMap {
		return RevocationRecord{}
	}
	return RevocationRecord{List: []byte(o.Data[RevocationListKey]), CRL: o.BinaryData[CRLKey], Version: o.ResourceVersion}
}

func (c *Client) recordSource() informer.Source[*corev1.ConfigMap, RevocationRecord] {
	api := c.conn.Core.CoreV1().ConfigMaps(c.conn.Namespace)
	return informer.Source[*corev1.ConfigMap, RevocationRecord]{
		Example:  &corev1.ConfigMap{},
		Selector: fields.OneTermEqualSelector("metadata.name", RevocationConfigMap).String(),
		List:     informer.AsObject(api.List),
		Watch:    api.Watch,
		Convert:  func(o *corev1.ConfigMap) (RevocationRecord, error) { return recordOf(o), nil },
	}
}

// RecordWatcher follows the published revocations alone. See Client.WatchRecord.
type RecordWatcher struct {
	*informer.Notifier
	records *informer.Feed[RevocationRecord]
}

// WatchRecord follows the published revocations until ctx ends.
func (c *Client) WatchRecord(ctx context.Context) (*RecordWatcher, error) {
	w := &RecordWatcher{Notifier: informer.NewNotifier(c.conn)}
	var err error
	w.records, err = informer.Start(c.conn.WithLog(ctx), w.Notifier, c.recordSource())
	return w, err
}

// Record returns what is published, the zero value if nothing is or it is not
// known yet.
func (w *RecordWatcher) Record() RevocationRecord {
	return theRecord(w.records)
}

func theRecord(f *informer.Feed[RevocationRecord]) (found RevocationRecord) {
	for _, r := range f.Values() {
		if r.Version != "" {
			found = r
		}
	}
	return found
}

// PublishRecord replaces what is published, in one request, if r.Version is still
// the ConfigMap's, and returns it with its new version. Of two writers one gets
// ErrConflict.
func (c *Client) PublishRecord(ctx context.Context, r RevocationRecord) (RevocationRecord, error) {
	doing := fmt.Sprintf("publish configmap %s/%s", c.conn.Namespace, RevocationConfigMap)
	api := c.conn.Core.CoreV1().ConfigMaps(c.conn.Namespace)
	object := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Name: RevocationConfigMap, ResourceVersion: r.Version, Labels: conn.Labels()},
		Data:       map[string]string{RevocationListKey: string(r.List)},
		BinaryData: map[string][]byte{CRLKey: r.CRL},
	}
	if len(r.CRL) == 0 {
		object.BinaryData = nil
	}
	var err error
	if r.Version == "" {
		object, err = api.Create(ctx, object, metav1.CreateOptions{})
	} else {
		object, err = api.Update(ctx, object, metav1.UpdateOptions{})
	}
	if err != nil {
		return RevocationRecord{}, kube.Wrap(doing, err)
	}
	return recordOf(object), nil
}

// Record returns what is published, from the API server itself; the zero value if
// nothing is.
func (c *Client) Record(ctx context.Context) (RevocationRecord, error) {
	object, err := c.conn.Core.CoreV1().ConfigMaps(c.conn.Namespace).Get(ctx, RevocationConfigMap, metav1.GetOptions{})
	if err := kube.Wrap("read configmap "+c.conn.Namespace+"/"+RevocationConfigMap, err); errors.Is(err, kube.ErrNotFound) {
		return RevocationRecord{}, nil
	} else if err != nil {
		return RevocationRecord{}, err
	}
	return recordOf(object), nil
}
