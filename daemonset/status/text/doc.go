// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package text renders reports of package status for people, as tables with colours
// on a terminal. Whatever comes from elsewhere is made safe for the terminal first.
package text
