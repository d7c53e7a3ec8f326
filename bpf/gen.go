// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package bpf

//go:generate go tool bpf2go -cc clang -strip llvm-strip -target bpfel -no-global-types -type endpoint -type backend -type choice -type client -type frontend -type guard -type port_key -type request -type rule -type rule_set -type service -type policy_state -type slot -type verdict -type forward -type prefix -type flow -type flow_state -type counter -type leak -type drop_reason -type path pod src/pod.c -- -O2 -g -Wall -Werror -mcpu=v3
//go:generate go tool bpf2go -cc clang -strip llvm-strip -target bpfel -no-global-types lane src/lane.c -- -O2 -g -Wall -Werror -mcpu=v3
//go:generate go tool bpf2go -cc clang -strip llvm-strip -target bpfel -no-global-types -type leak uplink src/uplink.c -- -O2 -g -Wall -Werror -mcpu=v3
