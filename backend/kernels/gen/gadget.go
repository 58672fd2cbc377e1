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
		ifmaDotMap(e, far)
		dqDotMap(e, far)
	}
}

// ahead is how far in front of their use operands are asked for, in bytes: there are more
// rows than the machine foresees, and most come from DRAM.
const ahead = 1024

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

// dotMap starts a kernel. rest names its last parameters.
func dotMap(e *emit, form, radix, limit string, far bool, rest string) {
	name, how := form+"DotMap", "stores"
	if far {
		name, how = name+"Far", "streams"
	}
	e.function(name, "func(z0, z1, a *uint64, f uint64, x, y0, y1 *[]uint64, terms, n int, to *uint32, lanes *[8][8]uint64, "+rest+")",
		name+" computes (a*f + sum x_k*y0_k)/"+radix+" and (sum x_k*y1_k)/"+radix+" mod q,",
		"without a if it is nil, "+limit+".",
		"It "+how+" group i of the results, lanes permuted by lanes[to[i]&7], as group to[i]>>3",
		"of z0 and z1.")
}

func ifmaDotMap(e *emit, far bool) {
	dotMap(e, "ifma", "2^52", "for (terms+1)*q <= 3*2^52", far, "q, neginv uint64")
	const groups = 4
	z := []reg.GPVirtual{e.arg("z0"), e.arg("z1")}
	a, n, i := e.arg("a"), e.arg("n"), e.GP64()
	p := &place{e, e.arg("to"), e.arg("lanes"), far}
	q, neginv := e.broadcast("q"), e.broadcast("neginv")
	q2 := e.add(q, q)
	e.XORQ(i, i)
	e.Label("row")
	var lo, hi [2][groups]vec
	for r := range lo {
		for k := range groups {
			lo[r][k], hi[r][k] = e.zero(), e.zero()
		}
	}
	e.TESTQ(a, a)
	e.JZ(LabelRef("products"))
	f := e.broadcast("f")
	for k := range groups {
		x := e.load(Mem{Base: a, Index: i, Scale: 8, Disp: 64 * k})
		e.VPMADD52LUQ(x, f, lo[0][k])
		e.VPMADD52HUQ(x, f, hi[0][k])
		e.PREFETCHT0(Mem{Base: a, Index: i, Scale: 8, Disp: 64*k + ahead})
	}
	e.Label("products")
	x, y, terms := e.arg("x"), []reg.GPVirtual{e.arg("y0"), e.arg("y1")}, e.arg("terms")
	e.Label("term")
	row := func(rows reg.GPVirtual) func(k int) vec {
		at := e.GP64()
		e.MOVQ(Mem{Base: rows}, at)
		e.ADDQ(U8(24), rows)
		return func(k int) vec {
			m := Mem{Base: at, Index: i, Scale: 8, Disp: 64*k + ahead}
			e.PREFETCHT0(m)
			m.Disp = 64 * k
			return e.load(m)
		}
	}
	first, second := row(x), [2]func(k int) vec{row(y[0]), row(y[1])}
	for k := range groups {
		u := first(k)
		for r := range y {
			v := second[r](k)
			e.VPMADD52LUQ(u, v, lo[r][k])
			e.VPMADD52HUQ(u, v, hi[r][k])
		}
	}
	e.DECQ(terms)
	e.JNZ(LabelRef("term"))
	for k := range groups {
		var out []vec
		for r := range lo {
			l, h := lo[r][k], hi[r][k]
			t := e.zero()
			e.VPMADD52LUQ(neginv, l, t)
			e.VPMADD52LUQ(q, t, l)
			e.VPMADD52HUQ(q, t, h)
			s := e.ZMM()
			e.VPSRLQ(U8(52), l, s)
			s = e.add(s, h)
			s = e.min(s, e.sub(s, q2))
			out = append(out, e.min(s, e.sub(s, q)))
		}
		p.put(z, out, i, k)
	}
	e.ADDQ(U8(4*groups), p.to)
	e.ADDQ(U8(8*groups), i)
	e.CMPQ(i, n)
	e.JLT(LabelRef("row"))
	if far {
		e.SFENCE()
	}
	e.VZEROUPPER()
	e.RET()
}

func dqDotMap(e *emit, far bool) {
	dotMap(e, "dq", "2^64", "the y times 2^shift, for (terms*2^shift+1)*q <= 3*2^64 and at most 23 terms", far, "shift, q, inv uint64")
	z := []reg.GPVirtual{e.arg("z0"), e.arg("z1")}
	a, n, i := e.arg("a"), e.arg("n"), e.GP64()
	p := &place{e, e.arg("to"), e.arg("lanes"), far}
	m := e.montgomery(true)
	e.XORQ(i, i)
	e.Label("row")
	x, y, terms := e.arg("x"), []reg.GPVirtual{e.arg("y0"), e.arg("y1")}, e.arg("terms")
	var acc [2]sum
	for k := range acc {
		acc[k] = sum{e.zero(), e.zero(), e.zero()}
	}
	keep := func(k int, s sum) {
		e.VMOVDQA64(s.lo, acc[k].lo)
		e.VMOVDQA64(s.mid, acc[k].mid)
		e.VMOVDQA64(s.hi, acc[k].hi)
	}
	e.TESTQ(a, a)
	e.JZ(LabelRef("term"))
	s := acc[0]
	m.mac(&s, m.halves(e.load(Mem{Base: a, Index: i, Scale: 8})), m.halves(e.broadcast("f")))
	e.PREFETCHT0(Mem{Base: a, Index: i, Scale: 8, Disp: ahead})
	keep(0, s)
	e.Label("term")
	row := func(rows reg.GPVirtual) vec {
		at := e.GP64()
		e.MOVQ(Mem{Base: rows}, at)
		e.ADDQ(U8(24), rows)
		e.PREFETCHT0(Mem{Base: at, Index: i, Scale: 8, Disp: ahead})
		return e.load(Mem{Base: at, Index: i, Scale: 8})
	}
	first := m.halves(row(x))
	for k := range acc {
		s := acc[k]
		m.mac(&s, first, m.second(row(y[k])))
		keep(k, s)
	}
	e.DECQ(terms)
	e.JNZ(LabelRef("term"))
	var out []vec
	for k := range acc {
		out = append(out, m.below(m.add(m.divide(acc[k]), m.q), m.q2, m.q))
	}
	p.put(z, out, i, 0)
	e.ADDQ(U8(4), p.to)
	e.ADDQ(U8(8), i)
	e.CMPQ(i, n)
	e.JLT(LabelRef("row"))
	if far {
		e.SFENCE()
	}
	e.VZEROUPPER()
	e.RET()
}
