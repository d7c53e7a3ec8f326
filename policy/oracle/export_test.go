// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package oracle

import "github.com/sealane/sealane/policy"

// DecideAfter is Decide with a tier before that of NetworkPolicies.
func DecideAfter(first Evaluator, cluster Cluster, x policy.Traffic) Decision {
	return decide(cluster, x, []Evaluator{first, networkPolicies{}})
}
