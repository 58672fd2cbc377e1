package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// aesRounds is the number of rounds of AES-256.
const aesRounds = 14

// aes generates the key stream of AES-256 in counter mode on 512-bit registers
// (VAES), four blocks to a register, and the choice of what is below a bound.
func aes(e *emit) {
	expandKey(e)
	uniform(e)
}

// expandKey generates the key schedule (FIPS 197, section 5.2), without tables and
// so without traces of the key in the cache.
func expandKey(e *emit) {
	e.function("expandKey", "func(keys *[240]byte, seed *[32]byte)", "expandKey computes the round keys of AES-256.")
	keys, seed := e.Load(e.Param("keys"), e.GP64()), e.Load(e.Param("seed"), e.GP64())
	even, odd, a, t := e.XMM(), e.XMM(), e.XMM(), e.XMM()
	e.VMOVDQU(Mem{Base: seed}, even)
	e.VMOVDQU(Mem{Base: seed, Disp: 16}, odd)
	put := func(round int, x reg.VecVirtual) { e.VMOVDQU(x, Mem{Base: keys, Disp: 16 * round}) }
	put(0, even)
	put(1, odd)
	// mix sets x to its running exclusive or, word by word, with the given word of
	// the last key added.
	mix := func(x, last reg.VecVirtual, rcon, word int) {
		e.VAESKEYGENASSIST(U8(rcon), last, a)
		e.VPSHUFD(U8(word), a, a)
		for range 3 {
			e.VPSLLDQ(U8(4), x, t)
			e.VPXOR(t, x, x)
		}
		e.VPXOR(a, x, x)
	}
	for i := range 7 {
		mix(even, odd, 1<<i, 0xff)
		put(2*i+2, even)
		if i < 6 {
			mix(odd, even, 0, 0xaa)
			put(2*i+3, odd)
		}
	}
	e.VZEROUPPER()
	e.RET()
}

// uniform generates the loop over groups of eight registers: 64 words.
func uniform(e *emit) {
	// A block of the counter: its first half as it lies in memory, the second counts.
	// Bytes of the latter are reversed in each block.
	var order, first, step []uint64
	for i := range uint64(4) {
		order = append(order, 0x0706050403020100, 0x08090a0b0c0d0e0f)
		first = append(first, 0, i)
		step = append(step, 0, 4)
	}
	swap, firsts, steps := e.table("counterOrder", order), e.table("counterFirst", first), e.table("counterStep", step)

	e.function("uniformBelow", "func(z *uint64, keys *[240]byte, name, ctr uint64, groups int, q, last, mask uint64, near, far *uint64) int",
		"uniformBelow reads groups times 64 words of the key stream, groups > 0, cuts them with",
		"mask, writes the residues modulo q of those up to last, below 16q, to z, which has room",
		"for all words, and returns their number. The counter block is name, as it lies in memory,",
		"and ctr, big-endian. For each eight words it prefetches a line from near and one from far.")
	z, at := e.arg("z"), e.GP64()
	e.MOVQ(z, at)
	keys, groups := e.arg("keys"), e.arg("groups")
	ahead := []reg.GPVirtual{e.arg("near"), e.arg("far")}
	var key [aesRounds + 1]reg.VecVirtual
	for r := range key {
		key[r] = e.ZMM()
		e.VBROADCASTI32X4(Mem{Base: keys, Disp: 16 * r}, key[r])
	}
	counter := e.ZMM()
	high := e.K()
	bits := e.GP32()
	e.MOVL(U32(0xaa), bits)
	e.KMOVB(bits, high)
	e.VPBROADCASTQ(e.param("name"), counter)
	e.VPBROADCASTQ(e.param("ctr"), high, counter)
	e.VPADDQ(firsts, counter, counter)
	last, mask := e.broadcast("last"), e.broadcast("mask")
	var times [4]reg.VecVirtual // 8q, 4q, 2q, q
	times[3] = e.broadcast("q")
	for i := 2; i >= 0; i-- {
		times[i] = e.add(times[i+1], times[i+1])
	}

	e.Label("group")
	var x [8]reg.VecVirtual
	for i := range x {
		x[i] = e.ZMM()
		e.VPSHUFB(swap, counter, x[i])
		e.VPADDQ(steps, counter, counter)
		e.VPXORQ(key[0], x[i], x[i])
	}
	for r := 1; r < aesRounds; r++ {
		for i := range x {
			e.VAESENC(key[r], x[i], x[i])
		}
		if i := r - 1; i < 8 {
			for _, from := range ahead {
				e.PREFETCHT0(Mem{Base: from, Disp: 64 * i})
			}
		}
	}
	for _, from := range ahead {
		e.ADDQ(U32(512), from)
	}
	for i := range x {
		e.VAESENCLAST(key[aesRounds], x[i], x[i])
	}
	// Compression to memory is slow on some machines; to a register it is not.
	for i := range x {
		k, n := e.K(), e.GP32()
		e.VPANDQ(mask, x[i], x[i])
		e.VPCMPUQ(U8(2), last, x[i], k)
		e.KMOVB(k, n)
		e.POPCNTL(n, n)
		y := e.ZMM()
		for _, m := range times {
			e.VPSUBQ(m, x[i], y)
			e.VPMINUQ(y, x[i], x[i])
		}
		e.VPCOMPRESSQ_Z(x[i], k, y)
		e.VMOVDQU64(y, Mem{Base: at})
		e.LEAQ(Mem{Base: at, Index: n.As64(), Scale: 8}, at)
	}
	e.DECQ(groups)
	e.JNZ(LabelRef("group"))
	e.SUBQ(z, at)
	e.SHRQ(U8(3), at)
	e.Store(at, e.ReturnIndex(0))
	e.VZEROUPPER()
	e.RET()
}
