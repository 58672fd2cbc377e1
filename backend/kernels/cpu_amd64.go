package kernels

import "golang.org/x/sys/cpu"

// hasIFMA reports whether the CPU and the operating system offer AVX-512 with F,
// DQ, BW, VL and IFMA.
func hasIFMA() bool {
	return cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512IFMA
}

// hasVAES reports whether they offer AES on 512-bit registers as well.
func hasVAES() bool {
	return cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512BW && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512VAES && cpu.X86.HasAES && cpu.X86.HasPOPCNT
}
