package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// gadget generates the inner products of hoisted rotations: sums of products of many
// rows with two others each go straight to where an automorphism puts them, group of
// eight residues by group. There is one kernel that stores through the caches and one,
// Far, that stores past them.
func gadget(e *emit) {
	for _, far := range []bool{false, true} {
		ifmaKernels(e).dotMap(far, "for (terms+1)*q <= 3*2^52")
		dqKernels(e).dotMap(far, "for (terms*2^shift+1)*q <= 3*2^64 and at most 23 terms")
	}
}

// place is what puts groups of eight residues into their places.
type place struct {
	*emit
	to, lanes reg.GPVirtual
	far       bool
}

// put stores the groups x[r] of each row r, number i/8+k, where word i/8+k of to says.
func (p *place) put(z []reg.GPVirtual, x []vec, i reg.GPVirtual, k int) {
	at, lane, order := p.GP64(), p.GP64(), p.ZMM()
	p.MOVLQZX(Mem{Base: p.to, Disp: 4 * k}, at)
	p.MOVQ(at, lane)
	p.ANDQ(U8(7), lane)
	p.SHLQ(U8(6), lane)
	p.ANDQ(I8(-8), at)
	p.VMOVDQU64(Mem{Base: p.lanes, Index: lane, Scale: 1}, order)
	for r := range x {
		y := p.ZMM()
		p.VPERMQ(x[r], order, y)
		m := Mem{Base: z[r], Index: at, Scale: 8}
		if p.far {
			p.VMOVNTDQ(y, m)
		} else {
			p.VMOVDQU64(y, m)
		}
	}
}

func (k *kernel) dotMap(far bool, limit string) {
	name, how := "DotMap", "stores"
	if far {
		name, how = name+"Far", "streams"
	}
	k.begin(name, "func(z0, z1, a *uint64, f uint64, x, y0, y1 *[]uint64, terms, n int, to *uint32, lanes *[8][8]uint64, "+k.params+" uint64)",
		"computes (a*f + sum x_k*y0_k"+k.shift+")/"+k.radix+" and (sum x_k*y1_k"+k.shift+")/"+k.radix+" mod q,",
		"without a if it is nil, "+limit+".",
		"It "+how+" group i of the results, lanes permuted by lanes[to[i]&7], as group to[i]>>3",
		"of z0 and z1.")
	f := k.montgomery(true)
	z := []reg.GPVirtual{k.arg("z0"), k.arg("z1")}
	a, n, i := k.arg("a"), k.arg("n"), k.GP64()
	p := &place{k.emit, k.arg("to"), k.arg("lanes"), far}
	k.XORQ(i, i)
	k.Label("row")
	acc := k.cleared(f)
	k.TESTQ(a, a)
	k.JZ(LabelRef("products"))
	c := f.first(k.broadcast("f"))
	for v := range k.vecs {
		at := Mem{Base: a, Index: i, Scale: 8, Disp: 64*v + ahead}
		k.PREFETCHT0(at)
		at.Disp -= ahead
		s := acc[0][v]
		f.mac(&s, f.first(k.load(at)), c)
		k.keep(acc[0][v], s)
	}
	k.Label("products")
	k.terms(f, acc, i)
	for v := range k.vecs {
		p.put(z, []vec{k.total(f, acc[0][v]), k.total(f, acc[1][v])}, i, v)
	}
	k.ADDQ(U8(uint8(4*k.vecs)), p.to)
	k.ADDQ(U8(uint8(8*k.vecs)), i)
	k.CMPQ(i, n)
	k.JLT(LabelRef("row"))
	if far {
		k.SFENCE()
	}
	k.end()
}
