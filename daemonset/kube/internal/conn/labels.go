// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package conn

// Labels marks what Sealane makes at run time, so that an uninstall finds it.
func Labels() map[string]string {
	return map[string]string{"app.kubernetes.io/part-of": "sealane"}
}
