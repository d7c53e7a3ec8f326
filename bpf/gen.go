// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

//go:generate ./generate
