// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package controllertest has an API server in memory for tests of the controller.
package controllertest
