// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package agents

import "errors"

// ErrNoAgent means that a node has no agent that could be asked.
var ErrNoAgent = errors.New("no agent pod on the node")
