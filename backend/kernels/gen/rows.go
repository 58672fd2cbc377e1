package main

import (
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

type (
	loader = func(name string) vec
	storer = func(name string, x vec)
)

// rows generates a loop over n words, two registers at a time, of the rows named; body
// gets loads and stores of one register.
func (e *emit) rows(names []string, body func(load loader, store storer)) {
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

// sums generates the sum and the difference of rows, which all vector forms share.
func (e *emit) sums() {
	e.function("dqAdd", "func(z, x, y *uint64, n int, q uint64)", "dqAdd sets z = x + y mod q.")
	p := e.prime(e.broadcast("q"))
	e.rows([]string{"z", "x", "y"}, func(load loader, store storer) {
		store("z", p.below(p.add(load("x"), load("y")), p.q))
	})
	e.function("dqSub", "func(z, x, y *uint64, n int, q uint64)", "dqSub sets z = x - y mod q.")
	p = e.prime(e.broadcast("q"))
	e.rows([]string{"z", "x", "y"}, func(load loader, store storer) {
		store("z", p.positive(p.sub(load("x"), load("y"))))
	})
}

// byConstant generates the products with a constant c, cs its quotient.
func (k *kernel) byConstant() {
	constant := func(f form) *factor { return f.factor(k.broadcast("c"), k.broadcast("cs")) }
	k.begin("MulConst", "func(z, x *uint64, n int, c, cs, q uint64)", "sets z = x*c mod q, for x below 4q.")
	f := k.form()
	p, c := f.modulus(), constant(f)
	k.rows([]string{"z", "x"}, func(load loader, store storer) {
		store("z", p.below(f.times(load("x"), c), f.over()...))
	})
	k.begin("MacConst", "func(z, a, x *uint64, n int, c, cs, q uint64)", "sets z = a + x*c mod q, for a below q and x below 4q.")
	f = k.form()
	p, c = f.modulus(), constant(f)
	k.rows([]string{"z", "a", "x"}, func(load loader, store storer) {
		store("z", p.below(p.add(load("a"), f.times(load("x"), c)), append([]vec{f.lift()}, f.over()...)...))
	})
	k.begin("SubMul", "func(z, x, y *uint64, n int, c, cs, q uint64)", "sets z = (x-y)*c mod q, for x and y below q.")
	f = k.form()
	p, c = f.modulus(), constant(f)
	k.rows([]string{"z", "x", "y"}, func(load loader, store storer) {
		store("z", p.below(f.times(p.sub(p.add(load("x"), p.q), load("y")), c), f.over()...))
	})
	k.begin("Centre", "func(z, x *uint64, n int, half, add, c, cs, q uint64)", "sets z = x*c mod q, in [0, 2q), plus add where x > half.")
	f = k.form()
	p, c = f.modulus(), constant(f)
	half, extra := k.broadcast("half"), k.broadcast("add")
	k.rows([]string{"z", "x"}, func(load loader, store storer) {
		x, over := load("x"), f.over()
		m, y := k.K(), p.below(f.times(x, c), over[:len(over)-1]...)
		k.VPCMPUQ(U8(6), half, x, m)
		k.VPADDQ(extra, y, m, y)
		store("z", y)
	})
}

// products generates those of rows.
func (k *kernel) products() {
	product := func(f form, load loader) vec {
		return f.modulus().positive(f.divideProduct(f.mul(f.first(load("x")), f.second(load("y")))))
	}
	k.begin("Mul", "func(z, x, y *uint64, n int, "+k.params+" uint64)", "sets z = x*y"+k.shift+"/"+k.radix+" mod q.")
	f := k.montgomery(true)
	k.rows([]string{"z", "x", "y"}, func(load loader, store storer) { store("z", product(f, load)) })
	k.begin("Mac", "func(z, a, x, y *uint64, n int, "+k.params+" uint64)", "sets z = a + x*y"+k.shift+"/"+k.radix+" mod q.")
	f = k.montgomery(true)
	k.rows([]string{"z", "a", "x", "y"}, func(load loader, store storer) {
		p := f.modulus()
		store("z", p.below(p.add(load("a"), product(f, load)), p.q))
	})
}

func (k *kernel) tensor() {
	k.begin("Tensor", "func(z0, z1, z2, a0, a1, b0, b1 *uint64, n int, c, cs, q, inv uint64)",
		"sets z0 = a0*b0, z1 = a0*b1 + a1*b0, z2 = a1*b1 mod q; c = "+k.radix+" mod q.")
	f := k.montgomery(false)
	p, c := f.modulus(), f.factor(k.broadcast("c"), k.broadcast("cs"))
	k.rows([]string{"z0", "z1", "z2", "a0", "a1", "b0", "b1"}, func(load loader, store storer) {
		form := func(name string) multiplicand { return f.first(p.below(f.times(load(name), c), f.over()...)) }
		a0, a1 := form("a0"), form("a1")
		b0, b1 := f.first(load("b0")), f.first(load("b1"))
		z0, z2 := p.positive(f.divideProduct(f.mul(a0, b0))), p.positive(f.divideProduct(f.mul(a1, b1)))
		z1 := p.positive(f.divide(f.twice(a0, b1, a1, b0)))
		store("z0", z0)
		store("z1", z1)
		store("z2", z2)
	})
}

// keep moves a sum to the registers of another, for loops.
func (e *emit) keep(to, s sum) {
	for _, m := range [][2]vec{{s.lo, to.lo}, {s.mid, to.mid}, {s.hi, to.hi}} {
		if m[0] != m[1] {
			e.VMOVDQA64(m[0], m[1])
		}
	}
}

// ahead is how far in front of their use operands are asked for, in bytes: there are more
// rows than the machine foresees, and most come from DRAM.
const ahead = 1024

// dot generates the sums of products of many rows with two others each.
func (k *kernel) dot() {
	k.begin("Dot", "func(z0, z1 *uint64, x, y0, y1 *[]uint64, terms, n int, "+k.params+" uint64)",
		"sets z0 = sum x_k*y0_k"+k.shift+"/"+k.radix+" and z1 likewise mod q, for", k.limit+".")
	f := k.montgomery(true)
	z, n, i := [2]reg.GPVirtual{k.arg("z0"), k.arg("z1")}, k.arg("n"), k.GP64()
	k.XORQ(i, i)
	k.Label("row")
	acc := k.cleared(f)
	k.terms(f, acc, i)
	for v := range k.vecs {
		for r := range z {
			k.store(k.total(f, acc[r][v]), Mem{Base: z[r], Index: i, Scale: 8, Disp: 64 * v})
		}
	}
	k.ADDQ(U8(uint8(8*k.vecs)), i)
	k.CMPQ(i, n)
	k.JLT(LabelRef("row"))
	k.end()
}

// cleared returns registers for the sums of two results.
func (k *kernel) cleared(f form) (acc [2][]sum) {
	for r := range acc {
		for range k.vecs {
			acc[r] = append(acc[r], f.clear())
		}
	}
	return acc
}

// total reduces a sum over R that is below 3q.
func (k *kernel) total(f form, s sum) vec {
	p := f.modulus()
	return p.below(p.add(f.divide(s), p.q), p.q2, p.q)
}

// terms generates the loop that adds the products of words i on of row k of x with those
// of rows k of y0 and y1.
func (k *kernel) terms(f form, acc [2][]sum, i reg.GPVirtual) {
	x, y, terms := k.arg("x"), [2]reg.GPVirtual{k.arg("y0"), k.arg("y1")}, k.arg("terms")
	k.Label("term")
	row := func(rows reg.GPVirtual) func(v int) vec {
		at := k.GP64()
		k.MOVQ(Mem{Base: rows}, at)
		k.ADDQ(U8(24), rows)
		return func(v int) vec {
			k.PREFETCHT0(Mem{Base: at, Index: i, Scale: 8, Disp: 64*v + ahead})
			return k.load(Mem{Base: at, Index: i, Scale: 8, Disp: 64 * v})
		}
	}
	first, second := row(x), [2]func(v int) vec{row(y[0]), row(y[1])}
	for v := range k.vecs {
		u := f.first(first(v))
		for r := range acc {
			s := acc[r][v]
			f.mac(&s, u, f.second(second[r](v)))
			k.keep(acc[r][v], s)
		}
	}
	k.DECQ(terms)
	k.JNZ(LabelRef("term"))
}

// convert generates the sums of products of rows with constants.
func (k *kernel) convert() {
	k.begin("Convert", "func(z *uint64, x *[]uint64, w *uint64, terms int, v *uint8, neg uint64, n int, q, inv uint64)",
		"sets z = (sum x_k*w_k + v*neg)/"+k.radix+" mod q, in [0, 4q), for at most nine", "terms.")
	f := k.montgomery(false)
	neg := f.first(k.broadcast("neg"))
	z := k.arg("z")
	k.conversion(f, 1, 2, func(int) multiplicand { return neg }, func(_ int, s sum) vec { return k.add(f.divide(s), f.modulus().q) },
		func(_ int, at Mem, x vec) { at.Base = z; k.store(x, at) })
}

// convert4 generates the same for four targets at once.
func (k *kernel) convert4() {
	k.begin("Convert4", "func(z *[4]*uint64, x *[]uint64, w *[36]uint64, terms int, v *uint8, c *[12]uint64, n int)",
		"does what "+k.prefix+"Convert does for four targets at once, so that the sources are", "read once: w holds four constants per term, c the four neg, q and inv.")
	c, rows := k.arg("c"), k.arg("z")
	var z [4]reg.GPVirtual
	for t := range z {
		z[t] = k.GP64()
		k.MOVQ(Mem{Base: rows, Disp: 8 * t}, z[t])
	}
	constant := func(i, t int) vec { return k.spread(Mem{Base: c, Disp: 8 * (4*i + t)}) }
	f := k.start(k.emit, constant(1, 0))
	f.montgomery(constant(2, 0), nil)
	k.conversion(f, 4, k.wide, func(t int) multiplicand { return f.first(constant(0, t)) },
		func(t int, s sum) vec {
			q := constant(1, t)
			return k.add(f.other(q, constant(2, t)).divide(s), q)
		},
		func(t int, at Mem, x vec) { at.Base = z[t]; k.store(x, at) })
}

// conversion generates the loop over words of a number of targets, some registers of
// each at a time.
func (k *kernel) conversion(f form, targets, vecs int, neg func(t int) multiplicand, divide func(t int, s sum) vec, store func(t int, at Mem, x vec)) {
	v, n, i := k.arg("v"), k.arg("n"), k.GP64()
	k.XORQ(i, i)
	k.Label("row")
	x, w, terms := k.arg("x"), k.arg("w"), k.arg("terms")
	acc := make([][]sum, targets)
	var quotients []vec
	for j := range vecs {
		u := k.ZMM()
		k.VPMOVZXBQ(Mem{Base: v, Index: i, Scale: 1, Disp: 8 * j}, u)
		quotients = append(quotients, u)
	}
	for t := range acc {
		c := neg(t)
		for _, u := range quotients {
			acc[t] = append(acc[t], f.mulByte(u, c))
		}
	}
	k.Label("term")
	row := k.GP64()
	k.MOVQ(Mem{Base: x}, row)
	var y []multiplicand
	for j := range vecs {
		at := Mem{Base: row, Index: i, Scale: 8, Disp: 64 * j}
		if targets > 1 { // up to nine rows in turn, which the machine does not foresee
			next := at
			next.Disp += ahead
			k.PREFETCHT0(next)
		}
		y = append(y, f.first(k.load(at)))
	}
	for t := range acc {
		c := f.first(k.spread(Mem{Base: w, Disp: 8 * t}))
		for j := range y {
			s := acc[t][j]
			f.mac(&s, y[j], c)
			k.keep(acc[t][j], s)
		}
	}
	k.ADDQ(U8(24), x)
	k.ADDQ(U8(uint8(8*targets)), w)
	k.DECQ(terms)
	k.JNZ(LabelRef("term"))
	for t := range acc {
		for j, s := range acc[t] {
			store(t, Mem{Index: i, Scale: 8, Disp: 64 * j}, divide(t, s))
		}
	}
	k.ADDQ(U8(uint8(8*vecs)), i)
	k.CMPQ(i, n)
	k.JLT(LabelRef("row"))
	k.end()
}

// prepare generates the first step of basis extension.
func (k *kernel) prepare() {
	k.begin("Prepare", "func(x *uint64, sum *float64, n int, c, cs, q uint64, frac float64)",
		"sets x = x*c mod q and adds x*frac to sum.")
	f := k.form()
	p, c := f.modulus(), f.factor(k.broadcast("c"), k.broadcast("cs"))
	frac := k.ZMM()
	k.VBROADCASTSD(k.param("frac"), frac)
	k.rows([]string{"x", "sum"}, func(load loader, store storer) {
		y := p.below(f.times(load("x"), c), f.over()...)
		store("x", y)
		d := k.ZMM()
		k.VCVTUQQ2PD(y, d)
		k.VMULPD(frac, d, d)
		k.VADDPD(load("sum"), d, d)
		store("sum", d)
	})
}
