// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package deploy holds the Helm chart. Its tests check every manifest that is
// rendered from the chart: it parses, the programs and flags in it exist, no
// account has more rights than it needs, and a wrong or misspelt value is
// rejected.
package deploy
