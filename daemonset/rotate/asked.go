// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package rotate

import (
	"time"

	"github.com/sealane/sealane/daemonset/kube/cluster"
	"github.com/sealane/sealane/keymgr/identity"
)

// asked returns the request that a key created now answers.
func asked(r cluster.RotationRequest) identity.Asked {
	return identity.Asked{Rotation: seconds(r.At), Compromised: seconds(r.Compromised)}
}

// seconds returns 0 for the zero time; moment is the inverse.
func seconds(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.Unix()
}

func moment(seconds int64) time.Time {
	if seconds == 0 {
		return time.Time{}
	}
	return time.Unix(seconds, 0)
}
