package kernels

import "golang.org/x/sys/cpu"

// hasDQ reports whether the CPU and the operating system offer AVX-512 with F, DQ,
// BW and VL.
func hasDQ() bool {
	return cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL
}

// hasIFMA reports whether they offer 52-bit multiply-add as well.
func hasIFMA() bool { return hasDQ() && cpu.X86.HasAVX512IFMA }

// hasVAES reports whether they offer AES on 512-bit registers.
func hasVAES() bool { return hasDQ() && cpu.X86.HasAVX512VAES && cpu.X86.HasAES && cpu.X86.HasPOPCNT }
