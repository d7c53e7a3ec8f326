// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package kubeproxy compares the backends that overlay/service chooses with
// those that kube-proxy's own code chooses. It is a module of its own, because
// what it needs of k8s.io/kubernetes must not decide the product's versions.
package kubeproxy
