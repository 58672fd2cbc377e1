package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// dq generates the kernels on 64-bit products of 32-bit halves (AVX-512 DQ), for
// primes q below 2^61: 8q fits a word.
func dq(e *emit) {
	forwardPass(e, 4)
	forwardPass(e, 2)
	forwardLast(e)
	inverseFirst(e)
	inversePass(e, 4)
	inversePass(e, 2)
	foldRow(e)
	byConstant(e)
	products(e)
	tensor(e)
	dot(e)
	convert(e)
	prepare(e)
}

// prime holds a prime and its multiples in all lanes.
type prime struct {
	*emit
	q, q2, q4 vec
}

// prime loads parameter q.
func (e *emit) prime() *prime {
	p := &prime{emit: e, q: e.broadcast("q")}
	p.q2 = e.add(p.q, p.q)
	p.q4 = e.add(p.q2, p.q2)
	return p
}

// factor is a constant w < q with s = floor(w*2^64/q) (Shoup's trick).
type factor struct{ w, s, high vec }

func (p *prime) factor(w, s vec) *factor { return &factor{w, s, p.high(s)} }

// params loads a factor from two parameters.
func (p *prime) params(w, s string) *factor { return p.factor(p.broadcast(w), p.broadcast(s)) }

// times returns y*w mod q in [0, 4q), for any word y. The quotient leaves out the
// product of the low halves and carries, at most 2 of it: 3q, and q for Shoup's own
// error.
func (p *prime) times(y vec, f *factor) vec {
	top := p.high(y)
	t := p.add(p.mulu(top, f.high), p.high(p.mulu(top, f.s)))
	t = p.add(t, p.high(p.mulu(y, f.high)))
	return p.sub(p.mull(y, f.w), p.mull(t, p.q))
}

// below reduces x from below twice the largest multiple of q, a multiple at a time.
func (p *prime) below(x vec, multiples ...vec) vec {
	for _, m := range multiples {
		x = p.min(x, p.sub(x, m))
	}
	return x
}

// forward is the butterfly of Harvey: x, y in [0, 8q) become x+y*w and x-y*w in
// [0, 8q).
func (p *prime) forward(x, y *vec, f *factor) {
	t := p.times(*y, f)
	*x = p.below(*x, p.q4)
	*x, *y = p.add(*x, t), p.sub(p.add(*x, p.q4), t)
}

// inverse is its inverse: x, y in [0, 4q) become x+y and (x-y)*w in [0, 4q).
func (p *prime) inverse(x, y *vec, f *factor) {
	d := p.add(p.sub(*x, *y), p.q4)
	*x, *y = p.below(p.add(*x, *y), p.q4), p.times(d, f)
}

// at returns the factor at an index of the tables w and s, for all lanes.
func (p *prime) at(w, s reg.GPVirtual, index int) *factor {
	return p.factor(p.spread(Mem{Base: w, Disp: 8 * index}), p.spread(Mem{Base: s, Disp: 8 * index}))
}

// passSignature is that of both transforms.
const passSignature = "func(z, x *uint64, blocks, t int, w, s *uint64, q uint64)"

// passLoop generates the loops over blocks of radix*t residues; body computes with one
// register of each of the radix rows and the factors of the block: that of the outer
// layer, and two of the inner one for radix 4.
func passLoop(e *emit, radix int, body func(p *prime, x []vec, f []*factor)) {
	z, x, blocks, t := e.arg("z"), e.arg("x"), e.arg("blocks"), e.arg("t")
	w, s := e.arg("w"), e.arg("s")
	p := e.prime()
	e.SHLQ(U8(3), t)
	e.LEAQ(Mem{Base: w, Index: blocks, Scale: 8}, w)
	e.LEAQ(Mem{Base: s, Index: blocks, Scale: 8}, s)
	w2, s2, x2, z2 := e.GP64(), e.GP64(), e.GP64(), e.GP64()
	if radix == 4 {
		e.LEAQ(Mem{Base: w, Index: blocks, Scale: 8}, w2)
		e.LEAQ(Mem{Base: s, Index: blocks, Scale: 8}, s2)
	}
	left := e.GP64()
	e.Label("block")
	f := []*factor{p.at(w, s, 0)}
	e.ADDQ(U8(8), w)
	e.ADDQ(U8(8), s)
	if radix == 4 {
		f = append(f, p.at(w2, s2, 0), p.at(w2, s2, 1))
		e.ADDQ(U8(16), w2)
		e.ADDQ(U8(16), s2)
		e.LEAQ(Mem{Base: x, Index: t, Scale: 2}, x2)
		e.LEAQ(Mem{Base: z, Index: t, Scale: 2}, z2)
	}
	e.MOVQ(t, left)
	e.Label("inner")
	rows := []vec{e.load(Mem{Base: x}), e.load(Mem{Base: x, Index: t, Scale: 1})}
	if radix == 4 {
		rows = append(rows, e.load(Mem{Base: x2}), e.load(Mem{Base: x2, Index: t, Scale: 1}))
	}
	body(p, rows, f)
	e.VMOVDQU64(rows[0], Mem{Base: z})
	e.VMOVDQU64(rows[1], Mem{Base: z, Index: t, Scale: 1})
	e.ADDQ(U8(64), x)
	e.ADDQ(U8(64), z)
	if radix == 4 {
		e.VMOVDQU64(rows[2], Mem{Base: z2})
		e.VMOVDQU64(rows[3], Mem{Base: z2, Index: t, Scale: 1})
		e.ADDQ(U8(64), x2)
		e.ADDQ(U8(64), z2)
	}
	e.SUBQ(U8(64), left)
	e.JNZ(LabelRef("inner"))
	if radix == 4 {
		e.LEAQ(Mem{Base: x2, Index: t, Scale: 1}, x)
		e.LEAQ(Mem{Base: z2, Index: t, Scale: 1}, z)
	} else {
		e.ADDQ(t, x)
		e.ADDQ(t, z)
	}
	e.DECQ(blocks)
	e.JNZ(LabelRef("block"))
	e.VZEROUPPER()
	e.RET()
}

func forwardPass(e *emit, radix int) {
	if radix == 4 {
		e.function("dqForward4", passSignature, "dqForward4 runs two forward layers, x to z: blocks of 4t residues; factors",
			"blocks+i, then 2*blocks+2i and the one after.")
		passLoop(e, 4, func(p *prime, x []vec, f []*factor) {
			p.forward(&x[0], &x[2], f[0])
			p.forward(&x[1], &x[3], f[0])
			p.forward(&x[0], &x[1], f[1])
			p.forward(&x[2], &x[3], f[2])
		})
		return
	}
	e.function("dqForward2", passSignature, "dqForward2 runs one forward layer: blocks of 2t residues; factors blocks+i.")
	passLoop(e, 2, func(p *prime, x []vec, f []*factor) { p.forward(&x[0], &x[1], f[0]) })
}

func inversePass(e *emit, radix int) {
	if radix == 4 {
		e.function("dqInverse4", passSignature, "dqInverse4 runs two inverse layers: those of dqForward4, backwards.")
		passLoop(e, 4, func(p *prime, x []vec, f []*factor) {
			p.inverse(&x[0], &x[1], f[1])
			p.inverse(&x[2], &x[3], f[2])
			p.inverse(&x[0], &x[2], f[0])
			p.inverse(&x[1], &x[3], f[0])
		})
		return
	}
	e.function("dqInverse2", passSignature, "dqInverse2 runs one inverse layer: that of dqForward2.")
	passLoop(e, 2, func(p *prime, x []vec, f []*factor) { p.inverse(&x[0], &x[1], f[0]) })
}

// block generates the loop over blocks of 64 residues and their 128 words of factors:
// 7 for all lanes, at 0, and their quotients at 8; 7 registers at 16, and theirs at
// 72. body gets a function for either kind.
func block(e *emit, body func(p *prime, x *[8]vec, all, lane func(i int) *factor)) {
	z, x, blocks, w := e.arg("z"), e.arg("x"), e.arg("blocks"), e.arg("w")
	p := e.prime()
	e.Label("block")
	var rows [8]vec
	for i := range rows {
		rows[i] = e.load(Mem{Base: x, Disp: 64 * i})
	}
	body(p, &rows,
		func(i int) *factor {
			return p.factor(p.spread(Mem{Base: w, Disp: 8 * i}), p.spread(Mem{Base: w, Disp: 8 * (8 + i)}))
		},
		func(i int) *factor {
			return p.factor(e.load(Mem{Base: w, Disp: 8 * (16 + 8*i)}), e.load(Mem{Base: w, Disp: 8 * (72 + 8*i)}))
		})
	for i := range rows {
		e.VMOVDQU64(rows[i], Mem{Base: z, Disp: 64 * i})
	}
	e.ADDQ(U32(512), x)
	e.ADDQ(U32(512), z)
	e.ADDQ(U32(1024), w)
	e.DECQ(blocks)
	e.JNZ(LabelRef("block"))
	e.VZEROUPPER()
	e.RET()
}

const blockSignature = "func(z, x *uint64, blocks int, w *uint64, q uint64)"

func forwardLast(e *emit) {
	e.function("dqForwardLast", blockSignature, "dqForwardLast runs the last six forward layers on blocks of 64 residues and reduces",
		"fully.")
	block(e, func(p *prime, x *[8]vec, all, lane func(i int) *factor) {
		layers(x, all, p.forward, false)
		p.transpose(x)
		layers(x, lane, p.forward, false)
		for i := range x {
			x[i] = p.below(x[i], p.q4, p.q2, p.q)
		}
		p.transpose(x)
	})
}

func inverseFirst(e *emit) {
	e.function("dqInverseFirst", blockSignature, "dqInverseFirst runs the first six inverse layers on blocks of 64 residues below 4q.")
	block(e, func(p *prime, x *[8]vec, all, lane func(i int) *factor) {
		p.transpose(x)
		layers(x, lane, p.inverse, true)
		p.transpose(x)
		layers(x, all, p.inverse, true)
	})
}

// layers runs three layers on eight registers: factor 0 at distance 4, 1 and 2 at
// distance 2, 3 to 6 at distance 1.
func layers(x *[8]vec, at func(i int) *factor, butterfly func(x, y *vec, f *factor), inverse bool) {
	for k := range 3 {
		d := 4 >> k
		if inverse {
			d = 1 << k
		}
		for i := range 4 / d {
			f := at(4/d - 1 + i)
			for j := range d {
				butterfly(&x[2*d*i+j], &x[2*d*i+j+d], f)
			}
		}
	}
}

// foldRow generates the step between the conjugate-invariant ring and the transform.
func foldRow(e *emit) {
	order := e.table("reversedLanes", []uint64{7, 6, 5, 4, 3, 2, 1, 0})
	e.function("dqFold", "func(z, x *uint64, n int, f, s, q uint64)",
		"dqFold sets z[j] = x[j] - f*x[n-j], and the same for n-j, for j = 8..n/2-1: the",
		"step of the conjugate-invariant ring. Residues below 4q, results below 8q.")
	z, x, n := e.arg("z"), e.arg("x"), e.arg("n")
	f := e.prime()
	c := f.params("f", "s")
	flip := e.load(order)
	x2, z2 := e.GP64(), e.GP64()
	e.LEAQ(Mem{Base: x, Index: n, Scale: 8, Disp: -120}, x2)
	e.LEAQ(Mem{Base: z, Index: n, Scale: 8, Disp: -120}, z2)
	e.ADDQ(U8(64), x)
	e.ADDQ(U8(64), z)
	e.SHRQ(U8(4), n)
	e.DECQ(n)
	e.JZ(LabelRef("done"))
	e.Label("fold")
	turn := func(a vec) vec { y := e.ZMM(); e.VPERMQ(a, flip, y); return y }
	a, b := e.load(Mem{Base: x}), turn(e.load(Mem{Base: x2}))
	u, v := e.sub(e.add(a, f.q4), f.times(b, c)), e.sub(e.add(b, f.q4), f.times(a, c))
	e.VMOVDQU64(u, Mem{Base: z})
	e.VMOVDQU64(turn(v), Mem{Base: z2})
	e.ADDQ(U8(64), x)
	e.ADDQ(U8(64), z)
	e.SUBQ(U8(64), x2)
	e.SUBQ(U8(64), z2)
	e.DECQ(n)
	e.JNZ(LabelRef("fold"))
	e.Label("done")
	e.VZEROUPPER()
	e.RET()
}

// rows generates a loop over n words, two registers at a time, of the rows named; body
// gets loads and stores of one register.
func rows(e *emit, names []string, body func(load func(name string) vec, store func(name string, x vec))) {
	n, i := e.arg("n"), e.GP64()
	base := map[string]reg.GPVirtual{}
	for _, name := range names {
		base[name] = e.arg(name)
	}
	e.XORQ(i, i)
	e.Label("row")
	for k := range 2 {
		at := func(name string) Mem { return Mem{Base: base[name], Index: i, Scale: 8, Disp: 64 * k} }
		body(func(name string) vec { return e.load(at(name)) }, func(name string, x vec) { e.VMOVDQU64(x, at(name)) })
	}
	e.ADDQ(U8(16), i)
	e.CMPQ(i, n)
	e.JLT(LabelRef("row"))
	e.VZEROUPPER()
	e.RET()
}

// byConstant generates the products with a constant c, cs its quotient.
func byConstant(e *emit) {
	e.function("dqMulConst", "func(z, x *uint64, n int, c, cs, q uint64)", "dqMulConst sets z = x*c mod q, for any words x.")
	p := e.prime()
	c := p.params("c", "cs")
	rows(e, []string{"z", "x"}, func(load func(string) vec, store func(string, vec)) {
		store("z", p.below(p.times(load("x"), c), p.q2, p.q))
	})
	e.function("dqMacConst", "func(z, a, x *uint64, n int, c, cs, q uint64)", "dqMacConst sets z = a + x*c mod q, for a < q and any words x.")
	p = e.prime()
	c = p.params("c", "cs")
	rows(e, []string{"z", "a", "x"}, func(load func(string) vec, store func(string, vec)) {
		store("z", p.below(p.add(load("a"), p.times(load("x"), c)), p.q4, p.q2, p.q))
	})
	e.function("dqSubMul", "func(z, x, y *uint64, n int, c, cs, q uint64)", "dqSubMul sets z = (x-y)*c mod q, for x and y below 4q.")
	p = e.prime()
	c = p.params("c", "cs")
	rows(e, []string{"z", "x", "y"}, func(load func(string) vec, store func(string, vec)) {
		store("z", p.below(p.times(p.sub(p.add(load("x"), p.q4), load("y")), c), p.q2, p.q))
	})
	e.function("dqCentre", "func(z, x *uint64, n int, half, add, c, cs, q uint64)",
		"dqCentre sets z = x*c mod q, in [0, 2q), plus add where x > half.")
	p = e.prime()
	c = p.params("c", "cs")
	half, extra := e.broadcast("half"), e.broadcast("add")
	rows(e, []string{"z", "x"}, func(load func(string) vec, store func(string, vec)) {
		x := load("x")
		k, y := e.K(), p.below(p.times(x, c), p.q2)
		e.VPCMPUQ(U8(6), half, x, k)
		e.VPADDQ(extra, y, k, y)
		store("z", y)
	})
}

// montgomery divides sums of products by 2^64 modulo q.
type montgomery struct {
	*prime
	inv   vec // 1/q mod 2^32
	top   vec // high half of q
	shift vec // of the second factors of products
	mask  vec // low half
}

// montgomery loads parameters q, inv and, if any, shift.
func (e *emit) montgomery(shift bool) *montgomery {
	m := &montgomery{prime: e.prime(), inv: e.broadcast("inv")}
	m.top = e.high(m.q)
	if shift {
		m.shift = e.broadcast("shift")
	}
	m.mask = e.ZMM()
	e.VPTERNLOGQ(U8(0xff), m.mask, m.mask, m.mask)
	m.mask = e.high(m.mask)
	return m
}

// sum is lo + mid*2^32 + hi*2^64. lo may exceed 32 bits.
type sum struct{ lo, mid, hi vec }

// halves is a word and its high half.
type halves struct{ low, high vec }

func (m *montgomery) halves(x vec) halves { return halves{x, m.high(x)} }

// second prepares a second factor.
func (m *montgomery) second(y vec) halves {
	z := m.ZMM()
	m.VPSLLVQ(m.shift, y, z)
	return m.halves(z)
}

// mul returns x*y, both below 2^62 and one below 2^61: mid is below 2^63.
func (m *montgomery) mul(x, y halves) sum {
	return sum{m.mulu(x.low, y.low), m.add(m.mulu(x.low, y.high), m.mulu(x.high, y.low)), m.mulu(x.high, y.high)}
}

// mac adds a product to s, whose mid is and stays below 2^32.
func (m *montgomery) mac(s *sum, x, y halves) {
	p := m.mul(x, y)
	s.lo = m.add(s.lo, m.and(p.lo, m.mask))
	t := m.add(m.add(s.mid, p.mid), m.high(p.lo))
	s.hi = m.add(m.add(s.hi, p.hi), m.high(t))
	s.mid = m.and(t, m.mask)
}

// divide returns s/2^64 mod q in (-q, s/2^64], in two steps of 32 bits. The low
// halves of what is subtracted equal those it is subtracted from, so that only high
// halves need be.
func (m *montgomery) divide(s sum) vec {
	k := m.mulu(s.lo, m.inv)
	mid := m.sub(m.add(s.mid, m.high(s.lo)), m.mulu(k, m.top))
	mid = m.sub(mid, m.high(m.mulu(k, m.q)))
	k = m.mulu(mid, m.inv)
	hi := m.sub(m.add(s.hi, m.sra(mid)), m.mulu(k, m.top))
	return m.sub(hi, m.high(m.mulu(k, m.q)))
}

// positive brings x from (-q, q) to [0, q).
func (m *montgomery) positive(x vec) vec { return m.min(x, m.add(x, m.q)) }

// products generates those of rows.
func products(e *emit) {
	e.function("dqMul", "func(z, x, y *uint64, n int, shift, q, inv uint64)", "dqMul sets z = x*y*2^shift/2^64 mod q.")
	m := e.montgomery(true)
	rows(e, []string{"z", "x", "y"}, func(load func(string) vec, store func(string, vec)) {
		store("z", m.positive(m.divide(m.mul(m.halves(load("x")), m.second(load("y"))))))
	})
	e.function("dqMac", "func(z, a, x, y *uint64, n int, shift, q, inv uint64)", "dqMac sets z = a + x*y*2^shift/2^64 mod q.")
	m = e.montgomery(true)
	rows(e, []string{"z", "a", "x", "y"}, func(load func(string) vec, store func(string, vec)) {
		t := m.positive(m.divide(m.mul(m.halves(load("x")), m.second(load("y")))))
		store("z", m.below(m.add(load("a"), t), m.q))
	})
}

func tensor(e *emit) {
	e.function("dqTensor", "func(z0, z1, z2, a0, a1, b0, b1 *uint64, n int, c, cs, q, inv uint64)",
		"dqTensor sets z0 = a0*b0, z1 = a0*b1 + a1*b0, z2 = a1*b1 mod q; c = 2^64 mod q.")
	m := e.montgomery(false)
	c := m.params("c", "cs")
	rows(e, []string{"z0", "z1", "z2", "a0", "a1", "b0", "b1"}, func(load func(string) vec, store func(string, vec)) {
		form := func(name string) halves { return m.halves(m.below(m.times(load(name), c), m.q2, m.q)) }
		a0, a1 := form("a0"), form("a1")
		b0, b1 := m.halves(load("b0")), m.halves(load("b1"))
		z0, z2 := m.positive(m.divide(m.mul(a0, b0))), m.positive(m.divide(m.mul(a1, b1)))
		s := m.mul(a0, b1)
		s.hi, s.mid = m.add(s.hi, m.high(s.mid)), m.and(s.mid, m.mask)
		// lo holds the whole low product: its high half goes to mid.
		s.mid, s.lo = m.add(s.mid, m.high(s.lo)), m.and(s.lo, m.mask)
		m.mac(&s, a1, b0)
		z1 := m.positive(m.divide(s))
		store("z0", z0)
		store("z1", z1)
		store("z2", z2)
	})
}

// dot generates the sums of products of many rows with two others each.
func dot(e *emit) {
	e.function("dqDot", "func(z0, z1 *uint64, x, y0, y1 *[]uint64, terms, n int, shift, q, inv uint64)",
		"dqDot sets z0 = sum x_k*y0_k*2^shift/2^64 and z1 likewise mod q, for terms*q <= 3*2^64",
		"and at most 24 terms.")
	m := e.montgomery(true)
	z, n, i := [2]reg.GPVirtual{e.arg("z0"), e.arg("z1")}, e.arg("n"), e.GP64()
	e.XORQ(i, i)
	e.Label("row")
	x, y, terms := e.arg("x"), [2]reg.GPVirtual{e.arg("y0"), e.arg("y1")}, e.arg("terms")
	var acc [2]sum
	for k := range acc {
		acc[k] = sum{e.zero(), e.zero(), e.zero()}
	}
	e.Label("term")
	row := func(rows reg.GPVirtual) vec {
		p := e.GP64()
		e.MOVQ(Mem{Base: rows}, p)
		e.ADDQ(U8(24), rows)
		return e.load(Mem{Base: p, Index: i, Scale: 8})
	}
	first := m.halves(row(x))
	for k := range acc {
		s := acc[k]
		m.mac(&s, first, m.second(row(y[k])))
		e.VMOVDQA64(s.lo, acc[k].lo)
		e.VMOVDQA64(s.mid, acc[k].mid)
		e.VMOVDQA64(s.hi, acc[k].hi)
	}
	e.DECQ(terms)
	e.JNZ(LabelRef("term"))
	for k := range acc {
		e.VMOVDQU64(m.below(m.add(m.divide(acc[k]), m.q), m.q2, m.q), Mem{Base: z[k], Index: i, Scale: 8})
	}
	e.ADDQ(U8(8), i)
	e.CMPQ(i, n)
	e.JLT(LabelRef("row"))
	e.VZEROUPPER()
	e.RET()
}

// convert generates the sums of products of rows with constants.
func convert(e *emit) {
	e.function("dqConvert", "func(z *uint64, x *[]uint64, w *uint64, terms int, v *uint8, neg uint64, n int, q, inv uint64)",
		"dqConvert sets z = (sum x_k*w_k + v*neg)/2^64 mod q, in [0, 4q), for at most eight",
		"terms.")
	m := e.montgomery(false)
	z, v, n, i := e.arg("z"), e.arg("v"), e.arg("n"), e.GP64()
	neg := m.halves(e.broadcast("neg"))
	e.XORQ(i, i)
	e.Label("row")
	x, w, terms := e.arg("x"), e.arg("w"), e.arg("terms")
	var acc [2]sum
	for k := range acc {
		u := e.ZMM()
		e.VPMOVZXBQ(Mem{Base: v, Index: i, Scale: 1, Disp: 8 * k}, u)
		lo, mid := e.mulu(u, neg.low), e.mulu(u, neg.high)
		acc[k] = sum{lo, e.and(mid, m.mask), e.high(mid)}
	}
	e.Label("term")
	p := e.GP64()
	e.MOVQ(Mem{Base: x}, p)
	c := m.halves(e.spread(Mem{Base: w}))
	for k := range acc {
		s := acc[k]
		m.mac(&s, m.halves(e.load(Mem{Base: p, Index: i, Scale: 8, Disp: 64 * k})), c)
		e.VMOVDQA64(s.lo, acc[k].lo)
		e.VMOVDQA64(s.mid, acc[k].mid)
		e.VMOVDQA64(s.hi, acc[k].hi)
	}
	e.ADDQ(U8(24), x)
	e.ADDQ(U8(8), w)
	e.DECQ(terms)
	e.JNZ(LabelRef("term"))
	for k := range acc {
		e.VMOVDQU64(m.add(m.divide(acc[k]), m.q), Mem{Base: z, Index: i, Scale: 8, Disp: 64 * k})
	}
	e.ADDQ(U8(16), i)
	e.CMPQ(i, n)
	e.JLT(LabelRef("row"))
	e.VZEROUPPER()
	e.RET()
}

func prepare(e *emit) {
	e.function("dqPrepare", "func(x *uint64, sum *float64, n int, c, cs, q uint64, frac float64)",
		"dqPrepare sets x = x*c mod q and adds x*frac to sum.")
	p := e.prime()
	c := p.params("c", "cs")
	frac := e.ZMM()
	e.VBROADCASTSD(e.param("frac"), frac)
	rows(e, []string{"x", "sum"}, func(load func(string) vec, store func(string, vec)) {
		y := p.below(p.times(load("x"), c), p.q2, p.q)
		store("x", y)
		d := e.ZMM()
		e.VCVTUQQ2PD(y, d)
		e.VMULPD(frac, d, d)
		e.VADDPD(load("sum"), d, d)
		store("sum", d)
	})
}
