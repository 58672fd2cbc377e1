package store

import "unsafe"

// features7 returns register EBX of CPUID leaf 7, or 0 where there is no such leaf.
func features7() uint32

//go:noescape
func flushCLWB(line unsafe.Pointer, lines uintptr)

//go:noescape
func flushCLFLUSHOPT(line unsafe.Pointer, lines uintptr)

//go:noescape
func flushCLFLUSH(line unsafe.Pointer, lines uintptr)

// flusher is one way to write cache lines back, followed by a store fence.
type flusher struct {
	name  string
	lines func(line unsafe.Pointer, lines uintptr)
}

// flushers lists the ways that this processor has, best first: CLWB keeps the lines
// in the cache, CLFLUSHOPT runs them at once, CLFLUSH is in every processor of this
// kind (Intel, Software Developer's Manual, volume 2A; AMD, Programmer's Manual,
// volume 3).
func flushers() []flusher {
	out := []flusher{{"CLFLUSH", flushCLFLUSH}}
	f := features7()
	if f>>23&1 == 1 {
		out = append([]flusher{{"CLFLUSHOPT", flushCLFLUSHOPT}}, out...)
	}
	if f>>24&1 == 1 {
		out = append([]flusher{{"CLWB", flushCLWB}}, out...)
	}
	return out
}

var flush = flushers()[0]

// canFlush says that persist needs no help of the operating system.
const canFlush = true

const lineBytes = 64

// flushPiece bounds how long a goroutine cannot be preempted.
const flushPiece = 256 << 10

// persist writes the cache lines of b back to memory, and returns when all of them
// are in the domain that survives a power failure: the memory controller, whose
// queues are emptied then (ADR).
func persist(b []byte) { persistWith(flush, b) }

func persistWith(f flusher, b []byte) {
	if len(b) == 0 {
		return
	}
	before := int(address(b) % lineBytes)
	p := unsafe.Add(unsafe.Pointer(unsafe.SliceData(b)), -before)
	for n := len(b) + before; n > 0; n -= flushPiece {
		f.lines(p, uintptr(min(n, flushPiece)+lineBytes-1)/lineBytes)
		if n > flushPiece {
			p = unsafe.Add(p, flushPiece)
		}
	}
}
