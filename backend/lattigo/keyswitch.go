package lattigo

import "github.com/home-fhe/home/backend/kernels"

// This file holds the steps that need transforms: rescaling, ModDown, gadget
// decomposition and key switching. All of them go prime by prime, so that their
// working set is a few limbs. The functions that parts of a step run capture nothing
// and find what they work on in its job, so that no step allocates.

// rescale divides by q_l, rounding.
func (e *engine) rescale(w *scratch) { e.divide(w, e.scale[w.l], 0, w.l+1, subMul) }

// modDown divides both parts by P, and by q_l where the step drops that, rounding once.
func (e *engine) modDown(w *scratch) { e.divide(w, e.special(w), 0, w.l+1+len(e.p.P), subMul) }

// special returns the basis of P and what a step drops.
func (e *engine) special(w *scratch) *kernels.Basis {
	switch {
	case w.drop == 0:
		return e.pToQ
	case w.twice:
		return e.twice[w.l]
	}
	return e.joined[w.l]
}

// subMul ends a division of the first operand.
func subMul(e *engine, w *scratch, k, i int, t []uint64, down uint64) {
	e.mods[i].SubMul(w.out.q(k, i), w.in[0].q(k, i), t, down)
}

// kept returns the number of limbs modulo Q that are left of QP_l when the step has
// divided: that of the first limb whose prime it divides by.
func (j *job) kept() int { return j.l + 1 - j.drop }

// division is a division by the product of the sources of b: the primes of limbs kept,
// kept+1, ... of QP_l.
type division struct {
	b     *kernels.Basis
	first int          // polynomial of the operand that is number 0 here
	x     [][][]uint64 // per polynomial, coefficients modulo the sources
	// emit receives the remainder of polynomial k modulo q_i, transformed, with the
	// inverse of the divisor.
	emit func(e *engine, w *scratch, k, i int, t []uint64, down uint64)
}

// divided readies the division of polynomials first..1 by the primes of limbs
// s.kept()..end-1, the sources of b.
func (s *scratch) divided(b *kernels.Basis, first, end int) {
	n := end - s.kept()
	s.div.b, s.div.first, s.div.x = b, first, s.div.x[:0]
	for k := range 2 - first {
		s.div.x = append(s.div.x, s.acc[k*n:(k+1)*n])
	}
}

// divide divides polynomials first..1 of the first operand by the primes of limbs
// w.kept()..end-1, the sources of b. It reads the residues modulo these as centred numbers
// and hands them to emit modulo those that are left, see division. It overwrites w.acc
// and w.tmp.
func (e *engine) divide(w *scratch, b *kernels.Basis, first, end int, emit func(e *engine, w *scratch, k, i int, t []uint64, down uint64)) {
	w.divided(b, first, end)
	w.div.emit = emit
	e.split(w, 0, (end-w.kept())*len(w.div.x), func(e *engine, w *scratch, from, to int) {
		for n := len(w.div.x[0]); from < to; from++ {
			k, j := from/n, from%n
			i := w.kept() + j
			e.mod(i, w.l).INTT(w.div.x[k][j], w.in[0].qp(w.div.first+k, i, w.l))
		}
	})
	if end-w.kept() > 1 {
		e.split(w, 0, 2, func(e *engine, w *scratch, from, to int) {
			for k, x := range w.div.x {
				e.prepare(w, w.div.b, x, w.v[k], from, to)
			}
		})
	}
	e.split(w, 0, w.kept(), func(e *engine, w *scratch, from, to int) {
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

// decomposed says that rows are what is decomposed, modulo Q_l and transformed, and sets
// w.coef to its coefficients.
func (e *engine) decomposed(w *scratch, rows [][]uint64) {
	w.poly = rows
	e.split(w, 0, w.l+1, func(e *engine, w *scratch, from, to int) {
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
	e.split(w, 0, 2, func(e *engine, w *scratch, from, to int) {
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
	e.split(w, 0, w.l+1+len(e.p.P), func(e *engine, w *scratch, lo, hi int) {
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

// product is a product modulo QP_l that is divided by P and what the step drops.
type product struct {
	// group prepares limbs from..from+n-1, a group at most; nil where there is nothing
	// to prepare.
	group func(e *engine, w *scratch, from, n int)
	// limb sets z0, z1 to limb i, number at of the group. Both may use w.tmp from the
	// second group on but for the last.
	limb func(e *engine, w *scratch, z0, z1 []uint64, i, at int)
	// emit receives limb i of the result in z0, z1, which it may overwrite; where it is
	// nil, they go to the result of the step.
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
	e.divideProduct(w, product{group: (*engine).digitGroup, limb: (*engine).keyLimb, emit: emit})
}

// keyLimb computes limb i of the gadget product with the last operand.
func (e *engine) keyLimb(w *scratch, z0, z1 []uint64, i, at int) {
	e.dotKey(w, z0, z1, e.digitLimb(w, i, at), w.in[len(w.in)-1], i, w.l)
}

// divideProduct computes a product, adds a constant to it (see job.c) and divides it by
// P and what the step drops.
func (e *engine) divideProduct(w *scratch, p product) {
	w.divided(e.special(w), 0, w.l+1+len(e.p.P))
	w.mul = p
	e.split(w, w.kept(), w.l+1+len(e.p.P), func(e *engine, w *scratch, from, to int) {
		z0, z1 := w.sums()
		for ; from < to; from += e.group {
			n := min(e.group, to-from)
			w.mul.prepare(e, w, from, n)
			for at := range n {
				i := from + at
				w.mul.limb(e, w, z0, z1, i, at)
				m := e.mod(i, w.l)
				m.INTT(w.div.x[0][i-w.kept()], z0)
				m.INTT(w.div.x[1][i-w.kept()], z1)
				if i <= w.l { // modulo P the constant is nothing
					w.div.x[0][i-w.kept()][0] = m.Reduce(w.div.x[0][i-w.kept()][0] + e.added(w, i))
				}
			}
		}
	})
	if len(w.div.x[0]) > 1 {
		e.split(w, 0, 2, func(e *engine, w *scratch, from, to int) {
			for k, x := range w.div.x {
				e.prepare(w, w.div.b, x, w.v[len(w.v)-2+k], from, to)
			}
		})
	}
	e.split(w, 0, w.kept(), func(e *engine, w *scratch, from, to int) {
		z0, z1 := w.sums()
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
				r0, r1 := z0, z1
				if w.mul.emit == nil {
					r0, r1 = w.out.q(0, i), w.out.q(1, i)
				}
				// A constant polynomial has one coefficient: it costs nothing before the transform.
				t[0] = m.Reduce(t[0]) + m.Q - e.added(w, i)
				m.NTT(t, t)
				m.SubMul(r0, z0, t, w.div.b.Down(i))
				m.NTT(u, u)
				m.SubMul(r1, z1, u, w.div.b.Down(i))
				if w.mul.emit != nil {
					w.mul.emit(e, w, z0, z1, i)
				}
			}
		}
	})
}

// sums returns the rows for limbs of a product.
func (s *scratch) sums() (z0, z1 []uint64) { return s.acc[len(s.acc)-2], s.acc[len(s.acc)-1] }

// added returns what is added to the products of a step before they are divided, or half
// of that where they are doubled: a constant times P, modulo q_i.
func (e *engine) added(w *scratch, i int) uint64 {
	m := e.mods[i]
	x := m.Times(w.c.mod(m), e.pModQ[i])
	if w.twice {
		x = m.Times(x, (m.Q+1)/2)
	}
	return x
}

// mulRelin multiplies two ciphertexts and brings the product back to degree one.
func (e *engine) mulRelin(w *scratch) {
	w.poly = w.own
	e.split(w, 0, w.l+1, func(e *engine, w *scratch, from, to int) {
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

// mulRescale adds up products of ciphertexts, brings the sum back to degree one and divides
// it by q_l, adding before that the operand that stands before the factors, if any, and a
// constant. The division by P of a key switch and that by q_l are one: what the key switch is to be
// added to is multiplied with P instead, and of twice a product x, which is divided by S,
// the remainder is found as half of that of 2x, so that (x - that)*2/S costs what x/S does.
func (e *engine) mulRescale(w *scratch) {
	w.poly = w.own
	w.divided(e.special(w), 0, w.l+1+len(e.p.P))
	e.split(w, 0, w.l+1, func(e *engine, w *scratch, from, to int) {
		last := len(w.in) - 1
		before := last % 2 // what is added stands there
		factors := w.in[before:last]
		for i := from; i < to; i++ {
			m := e.mods[i]
			d0, d1 := w.undivided(i)
			for k := 0; k < len(factors); k += 2 {
				a, b := factors[k], factors[k+1]
				if k == 0 {
					m.Tensor(d0, d1, w.own[i], a.q(0, i), a.q(1, i), b.q(0, i), b.q(1, i))
					continue
				}
				m.Tensor(w.tmp[0], w.tmp[1], w.tmp[2], a.q(0, i), a.q(1, i), b.q(0, i), b.q(1, i))
				m.Add(d0, d0, w.tmp[0])
				m.Add(d1, d1, w.tmp[1])
				m.Add(w.own[i], w.own[i], w.tmp[2])
			}
			if before > 0 {
				acc := w.in[0]
				if w.twice {
					m.MacConst(d0, d0, acc.q(0, i), (m.Q+1)/2)
					m.MacConst(d1, d1, acc.q(1, i), (m.Q+1)/2)
				} else {
					m.Add(d0, d0, acc.q(0, i))
					m.Add(d1, d1, acc.q(1, i))
				}
			}
			m.INTT(w.coef[i], w.own[i])
		}
	})
	e.prepareDigits(w)
	e.divideProduct(w, product{
		group: (*engine).digitGroup,
		limb: func(e *engine, w *scratch, z0, z1 []uint64, i, at int) {
			if e.keyLimb(w, z0, z1, i, at); i > w.l {
				return
			}
			d0, d1 := w.undivided(i)
			e.mods[i].MacConst(z0, z0, d0, e.pModQ[i])
			e.mods[i].MacConst(z1, z1, d1, e.pModQ[i])
		},
	})
}

// undivided returns the rows for limb i of what is to be divided: those of the result, and
// of the division for the limbs that the result has no more.
func (s *scratch) undivided(i int) (d0, d1 []uint64) {
	if k := i - s.kept(); k >= 0 {
		return s.div.x[0][k], s.div.x[1][k]
	}
	return s.out.q(0, i), s.out.q(1, i)
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

// rotateDot sets limb i of the result, an object modulo QP_l, to the image of f*a, if any,
// plus the product of the digits x with a key, and the image of their product with the
// other half of the key. far: see kernels.Rows.
func (e *engine) rotateDot(w *scratch, i int, a []uint64, f uint64, x [][]uint64, key *operand, far bool) {
	l, out := w.l, w.out
	y0, y1 := w.keyRows(key, len(x), i, l)
	if m := e.mod(i, l); key.streams {
		e.seeded(w, key, len(x), i, l)
		w.key.DotMap(m, out.q(0, i), out.q(1, i), a, f, x, y0, &w.auto, far)
	} else {
		m.DotMap(out.q(0, i), out.q(1, i), a, f, 0, x, y0, y1, &w.auto, far)
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
	np := len(e.p.P)
	w.poly = w.own
	e.divide(w, e.pToQ, 1, w.l+1+np, func(e *engine, w *scratch, _, i int, t []uint64, down uint64) {
		m := e.mods[i]
		m.SubMul(w.own[i], w.in[0].q(1, i), t, down)
		m.INTT(w.coef[i], w.own[i])
	})
	e.prepareDigits(w)
	e.automorphism(&w.auto, rotation(e.p, rot))
	e.split(w, 0, w.l+1+np, func(e *engine, w *scratch, from, to int) {
		in, key := w.in[0], w.in[1]
		for ; from < to; from += e.group {
			n := min(e.group, to-from)
			e.digitGroup(w, from, n)
			for at := range n {
				i := from + at
				e.rotateDot(w, i, in.qp(0, i, w.l), 1, e.digitLimb(w, i, at), key, e.far(w.l))
			}
		}
	})
}
