// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cluster

import (
	"github.com/sealane/sealane/daemonset/kube"
	"github.com/sealane/sealane/daemonset/kube/internal/conn"
)

// Names in the cluster that are part of Sealane's contract.
const (
	// TrustConfigMap is the name of the ConfigMap with the trust bundle.
	TrustConfigMap = "sealane-trust"
	// TrustBundleKey is the key of the bundle (PEM) in TrustConfigMap.
	TrustBundleKey = "bundle.pem"
	// RevocationConfigMap is the name of the ConfigMap with the revocation list.
	RevocationConfigMap = "sealane-revocations"
	// RevocationListKey is the key of the signed list (JSON) in its data.
	RevocationListKey = "list.json"
	// CRLKey is the key of the X.509 CRL (DER) in its binaryData.
	CRLKey = "crl.der"
)

// Client asks and changes what this package is about, and can do what a kube.Client can,
// too. It is safe for concurrent use.
type Client struct {
	*kube.Client
	conn conn.Conn
}

// New returns a Client that uses the connection of another. Whoever made that one closes it.
func New(client *kube.Client) *Client {
	return &Client{Client: client, conn: client.Connection()}
}
