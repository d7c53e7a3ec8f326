// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package revoke holds "sealane revoke", "readmit" and "revocations".
package revoke
