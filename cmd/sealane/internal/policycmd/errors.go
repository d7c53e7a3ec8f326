// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package policycmd

import "errors"

// errPrint means that the output takes no more records.
var errPrint = errors.New("print record")
