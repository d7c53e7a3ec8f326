// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package policy knows what networking.k8s.io/v1 NetworkPolicies mean.
//
// [Compiler] turns pods, namespaces and policies into [Tables], the flat form
// that the data path looks up packet by packet, and says after each change
// which entries of them differ. [Decide] is the same knowledge written down a
// second time, slowly and plainly: the oracle that the tables are tested
// against, and that explains a verdict to an operator.
//
// Nothing here watches an API or touches a kernel.
package policy
