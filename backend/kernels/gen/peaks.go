package main

import (
	. "github.com/mmcloughlin/avo/operand"
)

// peakChains is the number of independent instructions per turn of a loop that
// measures an instruction: more than any has in flight.
const peakChains = 24

// peaks generates the loops of which package kernels measures the rate: one
// instruction on 512-bit registers, or one kind of access to memory, and nothing else.
func peaks(e *emit) {
	one := func(name, doc string, instruction func(k int, z, x vec)) {
		e.function(name, "func(turns int, x uint64)", name+" executes "+doc+" 24 times per turn, on copies of x.")
		turns, x := e.arg("turns"), e.broadcast("x")
		var z [peakChains]vec
		for i := range z {
			z[i] = e.ZMM()
			e.VMOVDQA64(x, z[i])
		}
		e.Label("turn")
		for i := range z {
			instruction(i, z[i], x)
		}
		e.DECQ(turns)
		e.JNZ(LabelRef("turn"))
		e.VZEROUPPER()
		e.RET()
	}
	one("peakMadd52", "VPMADD52LUQ and VPMADD52HUQ by turns, together", func(k int, z, x vec) {
		if k%2 == 0 {
			e.VPMADD52LUQ(x, x, z)
		} else {
			e.VPMADD52HUQ(x, x, z)
		}
	})
	one("peakMulLow", "VPMULLQ", func(_ int, z, x vec) { e.VPMULLQ(x, z, z) })
	one("peakMulHalf", "VPMULUDQ", func(_ int, z, x vec) { e.VPMULUDQ(x, z, z) })
	one("peakFMA", "VFMADD213PD", func(_ int, z, x vec) { e.VFMADD213PD(x, x, z) })
	one("peakAES", "VAESENC", func(_ int, z, x vec) { e.VAESENC(x, z, z) })

	e.function("peakRead", "func(x *uint64, n int)", "peakRead reads n words, a multiple of 64, and forgets them.")
	x, n := e.arg("x"), e.arg("n")
	var sum [8]vec
	for i := range sum {
		sum[i] = e.zero()
	}
	e.Label("read")
	for i := range sum {
		e.VPORQ(Mem{Base: x, Disp: 64 * i}, sum[i], sum[i])
	}
	e.ADDQ(U32(512), x)
	e.SUBQ(U8(64), n)
	e.JNZ(LabelRef("read"))
	e.VZEROUPPER()
	e.RET()

	e.function("peakCopy", "func(z, x *uint64, n int)", "peakCopy copies n words, a multiple of 64.")
	z, x, n := e.arg("z"), e.arg("x"), e.arg("n")
	e.Label("copy")
	for i := range 8 {
		e.VMOVDQU64(e.load(Mem{Base: x, Disp: 64 * i}), Mem{Base: z, Disp: 64 * i})
	}
	e.ADDQ(U32(512), x)
	e.ADDQ(U32(512), z)
	e.SUBQ(U8(64), n)
	e.JNZ(LabelRef("copy"))
	e.VZEROUPPER()
	e.RET()
}
