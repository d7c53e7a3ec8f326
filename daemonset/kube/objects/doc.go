// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package objects follows what policies and services are made of: pods, namespaces,
// NetworkPolicies, Services and EndpointSlices of the whole cluster. There are too many of
// them for snapshots. So Objects names those that changed, and hands out the present state
// of each; a Reader asks the API server itself.
//
// NetworkPolicies and Services have a package each that knows what they mean; they go out
// as the API object, trimmed to what is read of it.
package objects
