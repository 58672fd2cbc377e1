package lattigo

import (
	"errors"
	"runtime/debug"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/kernels"
)

// This file holds the steps that need transforms: rescaling, ModDown, gadget
// decomposition and key switching. All of them go prime by prime, so that their
// working set is a few limbs. The functions that parts of a step run capture nothing
// and find what they work on in its job, so that no step allocates.

// rescale divides by q_{l+1}, rounding, l being the level of the result.
func (e *engine) rescale(w *scratch) {
	in, last := w.in[0], e.mods[w.l+1]
	x0, x1 := w.acc[:1], w.acc[1:2]
	last.INTT(x0[0], in.q(0, w.l+1))
	last.INTT(x1[0], in.q(1, w.l+1))
	e.divide(w, e.scale[w.l+1], subMul, x0, x1)
}

// modDown divides both parts by P, rounding.
func (e *engine) modDown(w *scratch) {
	in, np := w.in[0], len(e.p.P)
	x0, x1 := w.acc[:np], w.acc[np:2*np]
	for j := range np {
		e.mods[len(e.p.Q)+j].INTT(x0[j], in.qp(0, w.l+1+j, w.l))
		e.mods[len(e.p.Q)+j].INTT(x1[j], in.qp(1, w.l+1+j, w.l))
	}
	e.divide(w, e.pToQ, subMul, x0, x1)
}

// subMul ends a division of the first operand.
func subMul(e *engine, w *scratch, k, i int, t []uint64, down uint64) {
	e.mods[i].SubMul(w.out.q(k, i), w.in[0].q(k, i), t, down)
}

// division is a division by the product of the sources of b.
type division struct {
	b *kernels.Basis
	x [][][]uint64 // per polynomial, coefficients modulo the sources
	// emit receives the remainder of polynomial k modulo q_i, transformed, with the
	// inverse of the divisor.
	emit func(e *engine, w *scratch, k, i int, t []uint64, down uint64)
}

// divide reads each x, coefficients modulo the sources of b, as centred numbers and
// hands them to emit modulo q_0..q_l, see division. It overwrites x and w.tmp.
func (e *engine) divide(w *scratch, b *kernels.Basis, emit func(e *engine, w *scratch, k, i int, t []uint64, down uint64), x ...[][]uint64) {
	w.div.b, w.div.emit, w.div.x = b, emit, append(w.div.x[:0], x...)
	if len(x[0]) > 1 {
		e.halves(w, 0, 2, func(e *engine, w *scratch, from, to int) {
			for k, x := range w.div.x {
				e.prepare(w, w.div.b, x, w.v[k], from, to)
			}
		})
	}
	e.halves(w, 0, w.l+1, func(e *engine, w *scratch, from, to int) {
		d := &w.div
		for ; from < to; from += e.group {
			n := min(e.group, to-from)
			for k, x := range d.x {
				d.b.Convert(w.tmp[k*e.group:k*e.group+n], e.all[from:from+n], x, w.v[k])
			}
			// Transforms modulo one prime follow each other: their constants are large.
			for i := range n {
				for k := range d.x {
					t := w.tmp[k*e.group+i]
					e.mods[from+i].NTT(t, t)
					d.emit(e, w, k, from+i, t, d.b.Down(from+i))
				}
			}
		}
	})
}

// part is the numbers from..to-1 of something, and what is to be done with them.
type part struct {
	f        func(e *engine, w *scratch, from, to int)
	from, to int
}

// halves runs f over numbers from..to-1, of limbs for example, in two parts at once
// where a core has nothing else to do. The second part works in a scratch space of its
// own, which shares the job of w.
func (e *engine) halves(w *scratch, from, to int, f func(e *engine, w *scratch, from, to int)) {
	mid := from + (to-from+1)/2
	if mid >= to {
		f(e, w, from, to)
		return
	}
	select {
	case s := <-e.scratch:
		s = e.ready(s)
		defer e.give(s)
		s.job, s.half = w.job, part{f, mid, to}
		go s.run()
		err := backend.Guard(func() error { f(e, w, from, mid); return nil })
		if err = errors.Join(err, <-s.done); err != nil {
			panic(err)
		}
	default:
		f(e, w, from, to)
	}
}

// runHalf does the part of another step that s was given.
func (e *engine) runHalf(s *scratch) {
	debug.SetPanicOnFault(true) // operands may lie in a medium that fails under a load
	s.done <- backend.Guard(func() error { s.half.f(e, s, s.half.from, s.half.to); return nil })
}

// decomposed says that rows are what is decomposed, modulo Q_l and transformed, and sets
// w.coef to its coefficients.
func (e *engine) decomposed(w *scratch, rows [][]uint64) {
	w.poly = rows
	e.halves(w, 0, w.l+1, func(e *engine, w *scratch, from, to int) {
		for i := from; i < to; i++ {
			e.mods[i].INTT(w.coef[i], w.poly[i])
		}
	})
}

// prepareDigits turns w.coef[0..l], coefficients of a polynomial modulo Q_l, into
// prepared digits.
func (e *engine) prepareDigits(w *scratch) {
	if len(e.p.P) == 1 {
		return // single primes need no preparation
	}
	e.halves(w, 0, 2, func(e *engine, w *scratch, from, to int) {
		for d := range e.p.Digits(w.l) {
			lo, hi := e.digitPrimes(d, w.l)
			e.prepare(w, e.digitBasis(d, w.l), w.coef[lo:hi], w.v[d], from, to)
		}
	})
}

// prepare turns halves from..to-1 of rows, coefficients modulo the sources of b, into
// digits and their quotients v.
func (e *engine) prepare(w *scratch, b *kernels.Basis, rows [][]uint64, v []uint8, from, to int) {
	half, part := e.n/2, w.part[:len(rows)]
	for k, x := range rows {
		part[k] = x[from*half : to*half]
	}
	b.Prepare(part, v[from*half:to*half])
}

// digitLimbs computes digit d modulo limbs from..from+len(t)-1 of QP_l into rows t,
// as coefficients still, and sets x to them; where a limb belongs to the digit it
// is that of w.poly, transformed, and the row in t is not used.
func (e *engine) digitLimbs(w *scratch, x, t [][]uint64, d, from int) {
	var targets [maxGroup]int
	n := len(t)
	lo, hi := e.digitPrimes(d, w.l)
	if from < lo || from+n > hi {
		for i := range n {
			targets[i] = e.target(from+i, w.l)
		}
		e.digitBasis(d, w.l).Convert(t, targets[:n], w.coef[lo:hi], w.v[d])
	}
	for i := range n {
		if x[i] = t[i]; from+i >= lo && from+i < hi {
			x[i] = w.poly[from+i]
		}
	}
}

// decompose writes the digits of c1.
func (e *engine) decompose(w *scratch) {
	e.decomposed(w, w.in[0].limbs(1))
	e.prepareDigits(w)
	e.halves(w, 0, w.l+1+len(e.p.P), func(e *engine, w *scratch, lo, hi int) {
		var x [maxGroup][]uint64
		for d := range e.p.Digits(w.l) {
			for from := lo; from < hi; from += e.group {
				n := min(e.group, hi-from)
				z := w.out.limbs(d)[from : from+n]
				e.digitLimbs(w, x[:n], z, d, from)
				for i := range n {
					if &x[i][0] != &z[i][0] {
						copy(z[i], x[i])
						continue
					}
					m := e.mod(from+i, w.l)
					m.NTT(z[i], z[i])
				}
			}
		}
	})
}

// digitGroup computes limbs from..from+n-1, a group at most, of the prepared digits,
// modulo QP_l, as coefficients. It uses w.tmp from the second group on.
func (e *engine) digitGroup(w *scratch, from, n int) {
	for k := range e.p.Digits(w.l) {
		e.digitLimbs(w, w.x[k*e.group:k*e.group+n], w.tmp[(k+1)*e.group:(k+1)*e.group+n], k, from)
	}
}

// digitLimb returns limb i of all digits, transformed: number at of the group that was
// computed.
func (e *engine) digitLimb(w *scratch, i, at int) [][]uint64 {
	m, digits := e.mod(i, w.l), e.p.Digits(w.l)
	for k := range digits {
		x := w.x[k*e.group+at]
		if t := w.tmp[(k+1)*e.group+at]; &x[0] == &t[0] {
			m.NTT(x, x)
		}
		w.terms[k] = x
	}
	return w.terms[:digits]
}

// keyRows returns limb i of both halves of a key, for each of the digits.
func (s *scratch) keyRows(key *operand, digits, i, l int) (y0, y1 [][]uint64) {
	for k := range digits {
		s.y0[k], s.y1[k] = key.qp(2*k, i, l), key.qp(2*k+1, i, l)
	}
	return s.y0[:digits], s.y1[:digits]
}

// seeded readies w.key for limb i of the products of digits with a key whose uniform
// halves are made as they are used.
func (e *engine) seeded(w *scratch, key *operand, digits, i, l int) {
	w.key.Set(key.seed.key(), key.seed.draw())
	prime := e.target(i, l)
	for k := range digits {
		w.key.Row(k, e.mods[prime].Q, keyName(e.p, k, prime))
	}
}

// dotKey sets z0, z1 to limb i of the product of the digits x with a key.
func (e *engine) dotKey(w *scratch, z0, z1 []uint64, x [][]uint64, key *operand, i, l int) {
	y0, y1 := w.keyRows(key, len(x), i, l)
	if m := e.mod(i, l); key.streams {
		e.seeded(w, key, len(x), i, l)
		w.key.Dot(m, z0, z1, x, y0)
	} else {
		m.Dot(z0, z1, x, y0, y1)
	}
}

// product is a product modulo QP_l that is divided by P.
type product struct {
	// group prepares limbs from..from+n-1, a group at most; nil where there is nothing
	// to prepare.
	group func(e *engine, w *scratch, from, n int)
	// limb sets z0, z1 to limb i, number at of the group. Both may use w.tmp from the
	// second group on but for the last.
	limb func(e *engine, w *scratch, z0, z1 []uint64, i, at int)
	// emit receives limb i of the result in z0, z1, which it may overwrite.
	emit func(e *engine, w *scratch, z0, z1 []uint64, i int)
}

// prepare calls group.
func (p *product) prepare(e *engine, w *scratch, from, n int) {
	if p.group != nil {
		p.group(e, w, from, n)
	}
}

// switchKey computes the gadget product of the polynomial in w.coef (coefficients) and
// w.poly (transformed) with the last operand, a key, divides it by P and hands each limb
// of the result to emit, see product.
func (e *engine) switchKey(w *scratch, emit func(e *engine, w *scratch, z0, z1 []uint64, i int)) {
	e.prepareDigits(w)
	e.divideProduct(w, product{
		group: (*engine).digitGroup,
		limb: func(e *engine, w *scratch, z0, z1 []uint64, i, at int) {
			e.dotKey(w, z0, z1, e.digitLimb(w, i, at), w.in[len(w.in)-1], i, w.l)
		},
		emit: emit,
	})
}

// divideProduct computes a product and divides it by P.
func (e *engine) divideProduct(w *scratch, p product) {
	np := len(e.p.P)
	w.div.b, w.div.x, w.mul = e.pToQ, append(w.div.x[:0], w.acc[:np], w.acc[np:2*np]), p
	e.halves(w, w.l+1, w.l+1+np, func(e *engine, w *scratch, from, to int) {
		z0, z1 := w.acc[2*len(e.p.P)], w.acc[2*len(e.p.P)+1]
		for ; from < to; from += e.group {
			n := min(e.group, to-from)
			w.mul.prepare(e, w, from, n)
			for at := range n {
				i := from + at
				w.mul.limb(e, w, z0, z1, i, at)
				m := e.mod(i, w.l)
				m.INTT(w.div.x[0][i-w.l-1], z0)
				m.INTT(w.div.x[1][i-w.l-1], z1)
			}
		}
	})
	if np > 1 {
		e.halves(w, 0, 2, func(e *engine, w *scratch, from, to int) {
			for k, x := range w.div.x {
				e.prepare(w, w.div.b, x, w.v[len(w.v)-2+k], from, to)
			}
		})
	}
	e.halves(w, 0, w.l+1, func(e *engine, w *scratch, from, to int) {
		z0, z1 := w.acc[2*len(e.p.P)], w.acc[2*len(e.p.P)+1]
		for ; from < to; from += e.group {
			n := min(e.group, to-from)
			targets := e.all[from : from+n]
			// What is subtracted before the division by P waits in rows that the product
			// does not use.
			rest := [2][][]uint64{w.tmp[:n], w.tmp[len(w.tmp)-e.group:][:n]}
			for k, x := range w.div.x {
				w.div.b.Convert(rest[k], targets, x, w.v[len(w.v)-2+k])
			}
			w.mul.prepare(e, w, from, n)
			for at := range n {
				i := from + at
				w.mul.limb(e, w, z0, z1, i, at)
				m, t, u := e.mods[i], rest[0][at], rest[1][at]
				m.NTT(t, t)
				m.SubMul(z0, z0, t, w.div.b.Down(i))
				m.NTT(u, u)
				m.SubMul(z1, z1, u, w.div.b.Down(i))
				w.mul.emit(e, w, z0, z1, i)
			}
		}
	})
}

// mulRelin multiplies two ciphertexts and brings the product back to degree one.
func (e *engine) mulRelin(w *scratch) {
	w.poly = w.own
	e.halves(w, 0, w.l+1, func(e *engine, w *scratch, from, to int) {
		a, b := w.in[0], w.in[1]
		for i := from; i < to; i++ {
			m := e.mods[i]
			m.Tensor(w.out.q(0, i), w.out.q(1, i), w.own[i], a.q(0, i), a.q(1, i), b.q(0, i), b.q(1, i))
			m.INTT(w.coef[i], w.own[i])
		}
	})
	e.switchKey(w, func(e *engine, w *scratch, z0, z1 []uint64, i int) {
		m, out := e.mods[i], w.out
		m.Add(out.q(0, i), out.q(0, i), z0)
		m.Add(out.q(1, i), out.q(1, i), z1)
	})
}

// rotate rotates the slots to the left.
func (e *engine) rotate(w *scratch, rot int) {
	e.decomposed(w, w.in[0].limbs(1))
	e.automorphism(&w.auto, rotation(e.p, rot))
	e.switchKey(w, func(e *engine, w *scratch, z0, z1 []uint64, i int) {
		e.mods[i].Add(z0, z0, w.in[0].q(0, i))
		w.auto.Apply(w.out.q(0, i), z0)
		w.auto.Apply(w.out.q(1, i), z1)
	})
}

// realPart adds the complex conjugate.
func (e *engine) realPart(w *scratch) {
	e.decomposed(w, w.in[0].limbs(1))
	e.automorphism(&w.auto, conjugation(e.p))
	e.switchKey(w, func(e *engine, w *scratch, z0, z1 []uint64, i int) {
		m, out, in := e.mods[i], w.out, w.in[0]
		m.Add(z0, z0, in.q(0, i))
		w.auto.Apply(out.q(0, i), z0)
		m.Add(out.q(0, i), out.q(0, i), in.q(0, i))
		w.auto.Apply(out.q(1, i), z1)
		m.Add(out.q(1, i), out.q(1, i), in.q(1, i))
	})
}

// raise reads a ciphertext modulo q_0 as one modulo Q_l. In between it stands
// under the ephemeral secret, whose small weight bounds the multiples of q_0 that
// the message gains (Bossuat, Troncoso-Pastoriza and Hubaux, ePrint 2022/024).
func (e *engine) raise(w *scratch) {
	in, sparse := w.in[0], w.in[1]
	q, p := e.mods[0], e.mods[len(e.p.Q)]

	// To the ephemeral secret: c1 times the key modulo q_0*p_0, divided by p_0. The
	// coefficients of the result, modulo q_0, are left in w.coef.
	c1, up := w.coef[0], w.tmp[0]
	q.INTT(c1, in.q(1, 0))
	p.Centre(up, c1, q.Q, 1)
	p.NTT(up, up)
	down := e.small.Down(0)
	minus := q.Q - down
	for k, z := range w.coef[:2] {
		t := w.tmp[1]
		p.Mul(t, up, sparse.rows[2*k+1])
		p.INTT(t, t)
		q.Mul(z, in.q(1, 0), sparse.rows[2*k])
		if k == 0 {
			q.MacConst(z, z, in.q(0, 0), p.Q%q.Q)
		}
		q.INTT(z, z)
		q.MulConst(z, z, down)
		q.Centre(t, t, p.Q, 1)
		q.MacConst(z, z, t, minus)
	}

	// Modulo QP_l and back: every digit of a polynomial with coefficients below q_0/2
	// is that polynomial, so that one transform per limb serves them all.
	e.divideProduct(w, product{
		limb: func(e *engine, w *scratch, z0, z1 []uint64, i, _ int) {
			x, digits := e.raised(w, 1, i), e.p.Digits(w.l)
			for k := range digits {
				w.terms[k] = x
			}
			e.dotKey(w, z0, z1, w.terms[:digits], w.in[2], i, w.l)
		},
		emit: func(e *engine, w *scratch, z0, z1 []uint64, i int) {
			e.mods[i].Add(w.out.q(0, i), z0, e.raised(w, 0, i))
			copy(w.out.q(1, i), z1)
		},
	})
}

// raised returns polynomial k modulo q_0, of which w.coef has the coefficients, modulo
// limb i of QP_l, transformed, in a row of w.tmp.
func (e *engine) raised(w *scratch, k, i int) []uint64 {
	x, m := w.tmp[e.group], e.mod(i, w.l)
	m.Centre(x, w.coef[k], e.mods[0].Q, 1)
	m.NTT(x, x)
	return x
}

// hoistRot rotates a ciphertext whose digits are known; the result is P times
// the ciphertext, modulo QP.
func (e *engine) hoistRot(w *scratch, rot int) {
	e.automorphism(&w.auto, rotation(e.p, rot))
	e.halves(w, 0, w.l+1+len(e.p.P), func(e *engine, w *scratch, from, to int) {
		in, digits, key, l, d := w.in[0], w.in[1], w.in[2], w.l, e.p.Digits(w.l)
		for i := from; i < to; i++ {
			for k := range d {
				w.terms[k] = digits.qp(k, i, l)
			}
			if i <= l {
				e.rotateDot(w, w.out, i, in.q(0, i), e.pModQ[i], w.terms[:d], key, l)
			} else {
				e.rotateDot(w, w.out, i, nil, 0, w.terms[:d], key, l)
			}
		}
	})
}

// rotateDot sets limb i of out, an object modulo QP_l, to the image of f*a, if any, plus
// the product of the digits x with a key, and the image of their product with the other
// half of the key.
func (e *engine) rotateDot(w *scratch, out *operand, i int, a []uint64, f uint64, x [][]uint64, key *operand, l int) {
	y0, y1 := w.keyRows(key, len(x), i, l)
	if m := e.mod(i, l); key.streams {
		e.seeded(w, key, len(x), i, l)
		w.key.DotMap(m, out.q(0, i), out.q(1, i), a, f, x, y0, &w.auto, e.far(l))
	} else {
		m.DotMap(out.q(0, i), out.q(1, i), a, f, 0, x, y0, y1, &w.auto, e.far(l))
	}
}

// far reports whether what a rotation modulo QP_l reads and writes is more than caches
// hold: by the time that its result is read, it would have left them.
func (e *engine) far(l int) bool {
	const cache = 16 << 20
	nqp := l + 1 + len(e.p.P)
	return (3*e.p.Digits(l)+2)*nqp*e.SlabBytes() > cache
}

// giant rotates a ciphertext modulo QP: c1 is divided by P and switched, c0 stays
// as it is, so that one ModDown serves the sum of many giant steps.
func (e *engine) giant(w *scratch, rot int) {
	in, np := w.in[0], len(e.p.P)
	p := w.acc[:np]
	for j := range np {
		e.mods[len(e.p.Q)+j].INTT(p[j], in.qp(1, w.l+1+j, w.l))
	}
	w.poly = w.own
	e.divide(w, e.pToQ, func(e *engine, w *scratch, _, i int, t []uint64, down uint64) {
		m := e.mods[i]
		m.SubMul(w.own[i], w.in[0].q(1, i), t, down)
		m.INTT(w.coef[i], w.own[i])
	}, p)
	e.prepareDigits(w)
	e.automorphism(&w.auto, rotation(e.p, rot))
	e.halves(w, 0, w.l+1+np, func(e *engine, w *scratch, from, to int) {
		in, key := w.in[0], w.in[1]
		for ; from < to; from += e.group {
			n := min(e.group, to-from)
			e.digitGroup(w, from, n)
			for at := range n {
				i := from + at
				e.rotateDot(w, w.out, i, in.qp(0, i, w.l), 1, e.digitLimb(w, i, at), key, w.l)
			}
		}
	})
}
