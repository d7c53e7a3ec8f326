// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package words says times and amounts as people do, and makes texts from elsewhere
// safe for a terminal.
package words
