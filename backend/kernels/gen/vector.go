package main

import (
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
	"github.com/mmcloughlin/avo/x86"
)

// vec is a register of eight words.
type vec = reg.VecVirtual

// The functions below compute lane by lane into a new register.

func (e *emit) add(a, b Op) vec  { z := e.ZMM(); e.VPADDQ(b, a, z); return z }
func (e *emit) sub(a, b Op) vec  { z := e.ZMM(); e.VPSUBQ(b, a, z); return z }
func (e *emit) and(a, b Op) vec  { z := e.ZMM(); e.VPANDQ(b, a, z); return z }
func (e *emit) min(a, b Op) vec  { z := e.ZMM(); e.VPMINUQ(b, a, z); return z }
func (e *emit) mulu(a, b Op) vec { z := e.ZMM(); e.VPMULUDQ(b, a, z); return z } // of the low halves
func (e *emit) mull(a, b Op) vec { z := e.ZMM(); e.VPMULLQ(b, a, z); return z }  // low word
func (e *emit) high(a Op) vec    { z := e.ZMM(); e.VPSRLQ(U8(32), a, z); return z }
func (e *emit) sra(a Op) vec     { z := e.ZMM(); e.VPSRAQ(U8(32), a, z); return z }
func (e *emit) carry(a Op) vec   { z := e.ZMM(); e.VPSRLQ(U8(52), a, z); return z }
func (e *emit) load(m Mem) vec   { z := e.ZMM(); e.VMOVDQU64(m, z); return z }
func (e *emit) spread(m Mem) vec { z := e.ZMM(); e.VPBROADCASTQ(m, z); return z }

// zero returns a cleared register, and ones one with all bits set. Neither reads what the
// register held, which the allocator must be told.
func (e *emit) zero() vec { z := e.ZMM(); e.fresh(x86.VPXORQ(z, z, z)); return z }
func (e *emit) ones() vec { z := e.ZMM(); e.fresh(x86.VPTERNLOGQ(U8(0xff), z, z, z)); return z }

func (e *emit) fresh(i *ir.Instruction, err error) {
	if err != nil {
		panic(err)
	}
	i.CancellingInputs = true
	e.Instruction(i)
}

// arg loads a parameter into a general register.
func (e *emit) arg(name string) reg.GPVirtual {
	r := e.GP64()
	e.Load(e.Param(name), r)
	return r
}

// transpose transposes a matrix of eight rows of eight words.
func (e *emit) transpose(x *[8]vec) {
	unpack := func(a, b vec) (lo, hi vec) {
		lo, hi = e.ZMM(), e.ZMM()
		e.VPUNPCKLQDQ(b, a, lo)
		e.VPUNPCKHQDQ(b, a, hi)
		return lo, hi
	}
	shuffle := func(a, b vec) (even, odd vec) { // 128-bit lanes
		even, odd = e.ZMM(), e.ZMM()
		e.VSHUFI64X2(U8(0x88), b, a, even)
		e.VSHUFI64X2(U8(0xdd), b, a, odd)
		return even, odd
	}
	var y [8]vec
	for i := 0; i < 8; i += 2 {
		y[i], y[i+1] = unpack(x[i], x[i+1])
	}
	for i := 0; i < 8; i += 4 {
		x[i], x[i+1] = shuffle(y[i], y[i+2])
		x[i+2], x[i+3] = shuffle(y[i+1], y[i+3])
	}
	y[0], y[4] = shuffle(x[0], x[4])
	y[2], y[6] = shuffle(x[1], x[5])
	y[1], y[5] = shuffle(x[2], x[6])
	y[3], y[7] = shuffle(x[3], x[7])
	*x = y
}
