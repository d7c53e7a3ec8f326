// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package cli

import "errors"

var (
	// ErrBad means that the answer, which has been printed, is not the good one.
	ErrBad = errors.New("not as it should be")
	// ErrDisagree means that the kernel's tables and the policies of the API, both
	// of which have been printed, decide differently.
	ErrDisagree = errors.New("the tables of the nodes and the policies decide differently")
)

// ExitStatus returns the exit status for an error: 2 for ErrDisagree, which a
// script must tell from a question that failed, and 1 for all others.
func ExitStatus(err error) int {
	if errors.Is(err, ErrDisagree) {
		return 2
	}
	return 1
}
