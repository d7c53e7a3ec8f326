// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package conn

import (
	"context"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/gentype"
	"k8s.io/client-go/rest"

	"github.com/sealane/sealane/api/v1alpha1"
)

// Resource is a client of one resource, with objects of type T in lists of type L. Both
// gentype's client and its fake are one.
type Resource[T, L any] interface {
	reader[T, L]
	writer[T]
}

type reader[T, L any] interface {
	Get(ctx context.Context, name string, opts metav1.GetOptions) (T, error)
	List(ctx context.Context, opts metav1.ListOptions) (L, error)
	Watch(ctx context.Context, opts metav1.ListOptions) (watch.Interface, error)
}

type writer[T any] interface {
	Create(ctx context.Context, object T, opts metav1.CreateOptions) (T, error)
	Update(ctx context.Context, object T, opts metav1.UpdateOptions) (T, error)
	UpdateStatus(ctx context.Context, object T, opts metav1.UpdateOptions) (T, error)
	Delete(ctx context.Context, name string, opts metav1.DeleteOptions) error
}

// Resources are the clients of Sealane's own resources.
type Resources struct {
	NodeKeys     Resource[*v1alpha1.NodeKey, *v1alpha1.NodeKeyList]
	Revocations  Resource[*v1alpha1.Revocation, *v1alpha1.RevocationList]
	PodAddresses Resource[*v1alpha1.PodAddresses, *v1alpha1.PodAddressesList]
	// MergeAddresses changes a PodAddresses object by a merge patch (RFC 7396).
	MergeAddresses func(ctx context.Context, name string, patch []byte) error
}

func newResources(base *rest.Config) (Resources, error) {
	scheme := runtime.NewScheme()
	if err := v1alpha1.AddToScheme(scheme); err != nil {
		return Resources{}, err
	}
	group := v1alpha1.GroupVersion()
	cfg := rest.CopyConfig(base)
	cfg.GroupVersion, cfg.APIPath = &group, "/apis"
	cfg.NegotiatedSerializer = serializer.NewCodecFactory(scheme).WithoutConversion()
	client, err := rest.RESTClientFor(cfg)
	if err != nil {
		return Resources{}, err
	}
	codec := runtime.NewParameterCodec(scheme)
	addresses := gentype.NewClientWithList(
		v1alpha1.PodAddressesResource, client, codec, "",
		func() *v1alpha1.PodAddresses { return &v1alpha1.PodAddresses{} },
		func() *v1alpha1.PodAddressesList { return &v1alpha1.PodAddressesList{} },
	)
	return Resources{
		NodeKeys: gentype.NewClientWithList(
			v1alpha1.NodeKeyResource, client, codec, "",
			func() *v1alpha1.NodeKey { return &v1alpha1.NodeKey{} },
			func() *v1alpha1.NodeKeyList { return &v1alpha1.NodeKeyList{} },
		),
		Revocations: gentype.NewClientWithList(
			v1alpha1.RevocationResource, client, codec, "",
			func() *v1alpha1.Revocation { return &v1alpha1.Revocation{} },
			func() *v1alpha1.RevocationList { return &v1alpha1.RevocationList{} },
		),
		PodAddresses: addresses,
		MergeAddresses: func(ctx context.Context, name string, patch []byte) error {
			_, err := addresses.Patch(ctx, name, types.MergePatchType, patch, metav1.PatchOptions{})
			return err
		},
	}, nil
}
