// SPDX-License-Identifier: Apache-2.0
// Copyright The Sealane Authors

package limit

import (
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/sealane/sealane/internal/nl"
)

// instruction is struct bpf_insn of linux/bpf.h.
type instruction struct {
	code     uint8
	register uint8 // destination in the low half
	offset   int16
	imm      int32
}

// Of linux/bpf.h.
const (
	bpfProgLoad         = 5
	bpfProgTypeSchedCLS = 3
	bpfFuncRedirectPeer = 155
)

// loadRedirect loads a program that does nothing but call
// bpf_redirect_peer(device, 0), and returns its file.
func loadRedirect(device int) (*os.File, error) {
	program := []instruction{
		{code: 0xb7, register: 1, imm: int32(device)}, // r1 = device
		{code: 0xb7, register: 2},                     // r2 = 0
		{code: 0x85, imm: bpfFuncRedirectPeer},        // call
		{code: 0x95},                                  // return r0
	}
	license := []byte("Dual BSD/GPL\x00")
	attr := struct { // the begin of union bpf_attr for BPF_PROG_LOAD
		kind, count      uint32
		program, licence uint64
	}{
		kind: bpfProgTypeSchedCLS, count: uint32(len(program)),
		program: uint64(uintptr(unsafe.Pointer(&program[0]))),
		licence: uint64(uintptr(unsafe.Pointer(&license[0]))),
	}
	fd, _, errno := unix.Syscall(unix.SYS_BPF, bpfProgLoad, uintptr(unsafe.Pointer(&attr)), unsafe.Sizeof(attr))
	runtime.KeepAlive(program)
	runtime.KeepAlive(license)
	if errno != 0 {
		return nil, fmt.Errorf("load program that redirects to %d: %w", device, errno)
	}
	return os.NewFile(fd, "redirect_peer"), nil
}

// crossRedirect sends all that comes from the pod behind one device straight to the
// pod behind the other, both ways.
func crossRedirect(h *nl.Handle, a, b string) error {
	for _, pair := range [][2]string{{a, b}, {b, a}} {
		from, err := h.LinkByName(pair[0])
		if err != nil {
			return err
		}
		to, err := h.LinkByName(pair[1])
		if err != nil {
			return err
		}
		program, err := loadRedirect(to.Index)
		if err != nil {
			return err
		}
		err = h.AttachClsact(from.Index, nl.Ingress, int(program.Fd()), "redirect_peer")
		_ = program.Close() // the filter keeps the program
		if err != nil {
			return err
		}
	}
	return nil
}
