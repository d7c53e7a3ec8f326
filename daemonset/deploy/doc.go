// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package deploy holds the Helm chart and, as its tests, what must be true of
// every manifest that is rendered from it: that it parses, that programs and
// flags which it names exist, that nobody may do more than needed, and that a
// wrong or misspelt value is refused.
package deploy
