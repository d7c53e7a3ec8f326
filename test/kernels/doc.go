// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

// Package kernels tests what needs a kernel that the machine at hand may not
// have: the data path over the kernel's own WireGuard, with clsact (Linux 6.1) and
// with tcx (6.12). The tests have the build tag kernels; the script run builds
// them and the privileged tests of the other packages, and runs all of them in
// virtual machines.
package kernels
