// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package conn holds the connection to one API server that package kube and the packages
// below it share: client-go's client for Kubernetes' own resources, one for each of
// Sealane's, and what goes with them.
package conn
