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
	orders, firsts, steps := e.table("counterOrder", order), e.table("counterFirst", first), e.table("counterStep", step)

	e.function("uniformBelow", "func(z *uint64, keys *[240]byte, iv, ctr uint64, groups int, q, mask uint64) int",
		"uniformBelow reads groups times 64 words of the key stream, groups > 0, cuts them with",
		"mask, writes those below q to z, which has room for all, and returns their number.",
		"The counter block is iv, as it lies in memory, and ctr, big-endian.")
	z, at := e.Load(e.Param("z"), e.GP64()), e.GP64()
	e.MOVQ(z, at)
	keys, groups := e.Load(e.Param("keys"), e.GP64()), e.Load(e.Param("groups"), e.GP64())
	var key [aesRounds + 1]reg.VecVirtual
	for r := range key {
		key[r] = e.ZMM()
		e.VBROADCASTI32X4(Mem{Base: keys, Disp: 16 * r}, key[r])
	}
	swap, add, counter, t := e.ZMM(), e.ZMM(), e.ZMM(), e.ZMM()
	e.VMOVDQU64(orders, swap)
	e.VMOVDQU64(steps, add)
	high := e.K()
	bits := e.GP32()
	e.MOVL(U32(0xaa), bits)
	e.KMOVB(bits, high)
	e.VPBROADCASTQ(e.param("iv"), counter)
	e.VPBROADCASTQ(e.param("ctr"), high, counter)
	e.VPADDQ(firsts, counter, counter)
	q, mask := e.broadcast("q"), e.broadcast("mask")

	e.Label("group")
	var x [8]reg.VecVirtual
	for i := range x {
		x[i] = e.ZMM()
		e.VPSHUFB(swap, counter, x[i])
		e.VPADDQ(add, counter, counter)
		e.VPXORQ(key[0], x[i], x[i])
	}
	for r := 1; r < aesRounds; r++ {
		for i := range x {
			e.VAESENC(key[r], x[i], x[i])
		}
	}
	for i := range x {
		e.VAESENCLAST(key[aesRounds], x[i], x[i])
	}
	// Compression to memory is slow on some machines; to a register it is not.
	for i := range x {
		k, n := e.K(), e.GP32()
		e.VPANDQ(mask, x[i], x[i])
		e.VPCMPUQ(U8(1), q, x[i], k)
		e.KMOVB(k, n)
		e.POPCNTL(n, n)
		e.VPCOMPRESSQ_Z(x[i], k, t)
		e.VMOVDQU64(t, Mem{Base: at})
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
