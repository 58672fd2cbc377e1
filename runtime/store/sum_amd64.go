package store

import "golang.org/x/sys/cpu"

// canFold says that the CPU and the operating system offer carry-less products on
// 512-bit registers.
var canFold = cpu.X86.HasAVX512F && cpu.X86.HasAVX512DQ && cpu.X86.HasAVX512VL && cpu.X86.HasAVX512VPCLMULQDQ && cpu.X86.HasSSE42

const (
	foldGroup = 256       // bytes that foldCRC takes at a time
	foldPiece = 256 << 10 // bounds how long a goroutine cannot be preempted
)

// foldChecksum returns the checksum of the first n bytes of b: all but less than a
// group. It reads as fast as memory delivers, which one stream of CRC instructions
// does not.
func foldChecksum(b []byte) (sum uint32, n int) {
	state := ^uint32(0)
	for len(b)-n >= foldGroup {
		groups := min(len(b)-n, foldPiece) / foldGroup
		state = foldCRC(&b[n], groups, state)
		n += groups * foldGroup
	}
	return ^state, n
}
