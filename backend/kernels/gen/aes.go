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

// Two rounds are done once for many blocks. Those of a row differ in the number alone,
// in the last byte most often. Until the second round mixes the columns of the state,
// that byte is in one of them, and what stands there follows from it and from bytes that
// are the same in all of a row's first 2^40 blocks. So the state after two rounds is the
// exclusive or of a word of a table, by the last byte, and one for all blocks that have
// the other bytes in common. (Park and Lee, FACE: Fast AES CTR mode encryption
// techniques based on the reuse of repetitive data, TCHES 2018.)
const aesShared = 2

// A table of a row begins with these words. Behind them, at tableBytes, is room for the
// words of a group, which are drawn in one turn of the loop and chosen from in the next,
// between the rounds of AES; then, at tableMultiples, 16 multiples of q.
const (
	tableBytes     = 256 * 16
	groupBytes     = 8 * 64
	tableMultiples = tableBytes + groupBytes
	signatureTable = "table *[592]uint64"
)

// draws generates what makes uniform rows.
type draws struct {
	*emit
	order       Mem // of bytes: the second half of a counter block is big-endian
	table, keys reg.GPVirtual
}

// counter returns four blocks with the number ctr.
func (d *draws) counter(ctr Op) vec {
	x, half, bits := d.ZMM(), d.K(), d.GP32()
	d.MOVL(U32(0xaa), bits)
	d.KMOVB(bits, half)
	d.VPBROADCASTQ(d.param("name"), x)
	d.VPBROADCASTQ(ctr, half, x)
	return x
}

// shared sets z to what the shared rounds make of counter blocks x.
func (d *draws) shared(z, x vec) {
	d.VPSHUFB(d.order, x, z)
	for r := range aesShared + 1 {
		key := d.key(r)
		if r == 0 {
			d.VPXORQ(key, z, z)
		} else {
			d.VAESENC(key, z, z)
		}
	}
}

// key loads the key of a round.
func (d *draws) key(r int) vec {
	x := d.ZMM()
	d.VBROADCASTI32X4(Mem{Base: d.keys, Disp: 16 * r}, x)
	return x
}

// uniform generates what begins a row, and what draws from it.
func uniform(e *emit) {
	var order, first, step []uint64
	for i := range uint64(4) {
		order = append(order, 0x0706050403020100, 0x08090a0b0c0d0e0f)
		first = append(first, 0, i)
		step = append(step, 0, 4)
	}
	d := &draws{emit: e, order: e.table("counterOrder", order)}
	d.begin(e.table("counterFirst", first), e.table("counterStep", step))
	d.below()
}

// begin generates the table by the last byte.
func (d *draws) begin(first, step Mem) {
	d.function("uniformTable", "func("+signatureTable+", keys *[240]byte, name uint64)",
		"uniformTable sets the first 512 words of the table of a row.")
	d.table, d.keys = d.arg("table"), d.arg("keys")
	zero, n := d.GP64(), d.GP64()
	d.XORQ(zero, zero)
	counter, none, x := d.counter(zero), d.ZMM(), d.ZMM()
	d.shared(none, counter)
	d.VPADDQ(first, counter, counter)
	d.MOVQ(U32(tableBytes/64), n)
	d.Label("row")
	d.shared(x, counter)
	d.VPADDQ(step, counter, counter)
	d.VPXORQ(none, x, x)
	d.VMOVDQU64(x, Mem{Base: d.table})
	d.ADDQ(U8(64), d.table)
	d.DECQ(n)
	d.JNZ(LabelRef("row"))
	d.VZEROUPPER()
	d.RET()
}

// below generates the loop over groups of eight registers: 64 words.
func (d *draws) below() {
	d.function("uniformBelow", "func(z *uint64, "+signatureTable+", keys *[240]byte, name, ctr uint64, groups int, q, last, mask, shift uint64, near, far *uint64) int",
		"uniformBelow reads groups times 64 words of the key stream, groups > 0, cuts them with",
		"mask, writes the residues modulo q of those up to last, below 2^(shift+4), to z, which has",
		"room for all words, and returns their number. The counter block is name, as it lies in",
		"memory, and ctr, big-endian, a multiple of 32 up to 2^40. Word 576+i of the table is the",
		"largest multiple of q up to i*2^shift; q is from 2^shift up and below twice that. For each",
		"eight words it prefetches a line from near and one from far.")
	z, at := d.arg("z"), d.GP64()
	d.MOVQ(z, at)
	d.table, d.keys = d.arg("table"), d.arg("keys")
	groups, ctr, off := d.arg("groups"), d.arg("ctr"), d.GP64()
	d.MOVQ(ctr, off)
	d.SHLQ(U8(4), off)
	d.ANDQ(U32(tableBytes-1), off)
	ahead := []reg.GPVirtual{d.arg("near"), d.arg("far")}
	var key [aesRounds + 1]vec
	for r := aesShared + 1; r <= aesRounds; r++ {
		key[r] = d.key(r)
	}
	q, last, mask, shift := d.broadcast("q"), d.broadcast("last"), d.broadcast("mask"), d.broadcast("shift")
	multiples := [2]vec{d.load(Mem{Base: d.table, Disp: tableMultiples}), d.load(Mem{Base: d.table, Disp: tableMultiples + 64})}
	drawn := func(i int) Mem { return Mem{Base: d.table, Disp: tableBytes + 64*i} }

	// common is the state of the blocks that differ from that of ctr in the last byte only,
	// for 0 there.
	common := d.ZMM()
	share := func() {
		from := d.GP64()
		d.MOVQ(ctr, from)
		d.ANDQ(I32(-256), from)
		d.shared(common, d.counter(from))
	}
	// draw makes the words of a group, and does a piece of other work after each of eight
	// rounds.
	draw := func(name string, other func(i int)) {
		d.TESTQ(off, off)
		d.JNZ(LabelRef(name + "Words"))
		share()
		d.Label(name + "Words")
		var x [8]vec
		for i := range x {
			x[i] = d.ZMM()
			d.VPXORQ(Mem{Base: d.table, Index: off, Scale: 1, Disp: 64 * i}, common, x[i])
		}
		d.ADDQ(U32(groupBytes), off)
		d.ANDQ(U32(tableBytes-1), off)
		d.ADDQ(U8(groupBytes/16), ctr)
		for r := aesShared + 1; r < aesRounds; r++ {
			for i := range x {
				d.VAESENC(key[r], x[i], x[i])
			}
			if i := r - aesShared - 1; i < 8 {
				for _, from := range ahead {
					d.PREFETCHT0(Mem{Base: from, Disp: 64 * i})
				}
				other(i)
			}
		}
		for _, from := range ahead {
			d.ADDQ(U32(512), from)
		}
		for i := range x {
			d.VAESENCLAST(key[aesRounds], x[i], x[i])
			d.VMOVDQU64(x[i], drawn(i))
		}
	}
	// choose writes those of eight words that count, reduced: the high four bits say how
	// many q to subtract, or one less. Compression to memory is slow on some machines; to a
	// register it is not.
	choose := func(i int) {
		k, n, x, y := d.K(), d.GP32(), d.ZMM(), d.ZMM()
		d.VPANDQ(drawn(i), mask, x)
		d.VPCMPUQ(U8(2), last, x, k)
		d.KMOVB(k, n)
		d.POPCNTL(n, n)
		d.VPSRLVQ(shift, x, y)
		d.VPERMI2Q(multiples[1], multiples[0], y)
		d.VPSUBQ(y, x, x)
		d.VPSUBQ(q, x, y)
		d.VPMINUQ(y, x, x)
		d.VPCOMPRESSQ_Z(x, k, y)
		d.VMOVDQU64(y, Mem{Base: at})
		d.LEAQ(Mem{Base: at, Index: n.As64(), Scale: 8}, at)
	}
	share()
	draw("first", func(int) {})
	d.DECQ(groups)
	d.JZ(LabelRef("rest"))
	d.Label("group")
	draw("group", choose)
	d.DECQ(groups)
	d.JNZ(LabelRef("group"))
	d.Label("rest")
	for i := range 8 {
		choose(i)
	}
	d.SUBQ(z, at)
	d.SHRQ(U8(3), at)
	d.Store(at, d.ReturnIndex(0))
	d.VZEROUPPER()
	d.RET()
}
