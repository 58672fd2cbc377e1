package lattigo

import (
	"errors"
	"runtime/debug"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/kernels"
)

// This file holds the steps that need transforms: rescaling, ModDown, gadget
// decomposition and key switching. All of them go prime by prime, so that their
// working set is a few limbs.

// rescale divides by q_{l+1}, rounding, l being the level of out.
func (e *engine) rescale(w *scratch, out, in *operand) {
	l := out.t.Level
	last := e.mods[l+1]
	x0, x1 := w.acc[:1], w.acc[1:2]
	last.INTT(x0[0], in.q(0, l+1))
	last.INTT(x1[0], in.q(1, l+1))
	e.divide(w, e.scale[l+1], [][][]uint64{x0, x1}, l, func(k, i int, t []uint64, down uint64) {
		e.mods[i].SubMul(out.q(k, i), in.q(k, i), t, down)
	})
}

// modDown divides both parts by P, rounding.
func (e *engine) modDown(w *scratch, out, in *operand) {
	l, np := out.t.Level, len(e.p.P)
	x0, x1 := w.acc[:np], w.acc[np:2*np]
	for j := range np {
		e.mods[len(e.p.Q)+j].INTT(x0[j], in.qp(0, l+1+j, l))
		e.mods[len(e.p.Q)+j].INTT(x1[j], in.qp(1, l+1+j, l))
	}
	e.divide(w, e.pToQ, [][][]uint64{x0, x1}, l, func(k, i int, t []uint64, down uint64) {
		e.mods[i].SubMul(out.q(k, i), in.q(k, i), t, down)
	})
}

// divide reads each x, coefficients modulo the sources of b, as centred numbers and
// hands them to emit modulo q_0..q_l, transformed, with the inverse of the product
// of the sources. It overwrites x and w.tmp.
func (e *engine) divide(w *scratch, b *kernels.Basis, x [][][]uint64, l int, emit func(k, i int, t []uint64, down uint64)) {
	if len(x[0]) > 1 {
		e.halves(w, 0, 2, func(w *scratch, from, to int) {
			for k := range x {
				e.prepare(w, b, x[k], w.v[k], from, to)
			}
		})
	}
	e.halves(w, 0, l+1, func(w *scratch, from, to int) {
		for ; from < to; from += e.group {
			n := min(e.group, to-from)
			for k := range x {
				b.Convert(w.tmp[k*e.group:k*e.group+n], e.all[from:from+n], x[k], w.v[k])
			}
			// Transforms modulo one prime follow each other: their constants are large.
			for i := range n {
				for k := range x {
					t := w.tmp[k*e.group+i]
					e.mods[from+i].NTT(t, t)
					emit(k, from+i, t, b.Down(from+i))
				}
			}
		}
	})
}

// halves runs f over numbers from..to-1, of limbs for example, in two parts at once
// where a core has nothing else to do. The second part works in a scratch space of its
// own, which shares with w what f only reads, or writes number by number: coef, own, v
// and the automorphism.
func (e *engine) halves(w *scratch, from, to int, f func(w *scratch, from, to int)) {
	mid := from + (to-from+1)/2
	if mid >= to {
		f(w, from, to)
		return
	}
	select {
	case s := <-e.scratch:
		if s == nil {
			s = e.newScratch()
		}
		defer e.give(s)
		half := *s
		half.coef, half.own, half.v, half.auto = w.coef, w.own, w.v, w.auto
		done := make(chan error, 1)
		go func() {
			debug.SetPanicOnFault(true) // operands may lie in a medium that fails under a load
			done <- backend.Guard(func() error { f(&half, mid, to); return nil })
		}()
		err := backend.Guard(func() error { f(w, from, mid); return nil })
		if err = errors.Join(err, <-done); err != nil {
			panic(err)
		}
	default:
		f(w, from, to)
	}
}

// coefficients sets w.coef to the coefficients of limbs 0..l of a polynomial.
func (e *engine) coefficients(w *scratch, l int, limb func(i int) []uint64) {
	e.halves(w, 0, l+1, func(w *scratch, from, to int) {
		for i := from; i < to; i++ {
			e.mods[i].INTT(w.coef[i], limb(i))
		}
	})
}

// prepareDigits turns w.coef[0..l], coefficients of a polynomial modulo Q_l, into
// prepared digits.
func (e *engine) prepareDigits(w *scratch, l int) {
	if len(e.p.P) == 1 {
		return // single primes need no preparation
	}
	e.halves(w, 0, 2, func(w *scratch, from, to int) {
		for d := range e.p.Digits(l) {
			lo, hi := e.digitPrimes(d, l)
			e.prepare(w, e.digitBasis(d, l), w.coef[lo:hi], w.v[d], from, to)
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
// is own(i) itself, transformed, and the row in t is not used.
func (e *engine) digitLimbs(w *scratch, x, t [][]uint64, d, from, l int, own func(i int) []uint64) {
	var targets [maxGroup]int
	n := len(t)
	lo, hi := e.digitPrimes(d, l)
	if from < lo || from+n > hi {
		for i := range n {
			targets[i] = e.target(from+i, l)
		}
		e.digitBasis(d, l).Convert(t, targets[:n], w.coef[lo:hi], w.v[d])
	}
	for i := range n {
		if x[i] = t[i]; from+i >= lo && from+i < hi {
			x[i] = own(from + i)
		}
	}
}

// decompose writes the digits of c1.
func (e *engine) decompose(w *scratch, out, in *operand) {
	l := out.t.Level
	own := func(i int) []uint64 { return in.q(1, i) }
	e.coefficients(w, l, own)
	e.prepareDigits(w, l)
	e.halves(w, 0, l+1+len(e.p.P), func(w *scratch, lo, hi int) {
		var x [maxGroup][]uint64
		for d := range e.p.Digits(l) {
			for from := lo; from < hi; from += e.group {
				n := min(e.group, hi-from)
				z := out.rows[d*out.stride+from : d*out.stride+from+n]
				e.digitLimbs(w, x[:n], z, d, from, l, own)
				for i := range n {
					if &x[i][0] != &z[i][0] {
						copy(z[i], x[i])
						continue
					}
					m := e.mod(from+i, l)
					m.NTT(z[i], z[i])
				}
			}
		}
	})
}

// digitGadget computes limbs from..to-1 of the prepared digits, modulo QP_l, transformed,
// and hands each limb of all digits to emit. It uses w.tmp from the second group on.
func (e *engine) digitGadget(w *scratch, from, to, l int, own func(i int) []uint64, emit func(i int, x [][]uint64)) {
	digits := e.p.Digits(l)
	for ; from < to; from += e.group {
		n := min(e.group, to-from)
		for k := range digits {
			e.digitLimbs(w, w.x[k*e.group:k*e.group+n], w.tmp[(k+1)*e.group:(k+1)*e.group+n], k, from, l, own)
		}
		// Transforms modulo one prime follow each other: their constants are large.
		for i := range n {
			m := e.mod(from+i, l)
			for k := range digits {
				x := w.x[k*e.group+i]
				if t := w.tmp[(k+1)*e.group+i]; &x[0] == &t[0] {
					m.NTT(x, x)
				}
				w.terms[k] = x
			}
			emit(from+i, w.terms[:digits])
		}
	}
}

// keyRows returns limb i of both halves of a key, for each of the digits.
func (s *scratch) keyRows(key *operand, digits, i, l int) (y0, y1 [][]uint64) {
	for k := range digits {
		s.y0[k], s.y1[k] = key.qp(2*k, i, l), key.qp(2*k+1, i, l)
	}
	return s.y0[:digits], s.y1[:digits]
}

// dotKey sets z0, z1 to limb i of the product of the digits x with a key.
func (e *engine) dotKey(w *scratch, z0, z1 []uint64, x [][]uint64, key *operand, i, l int) {
	y0, y1 := w.keyRows(key, len(x), i, l)
	e.mod(i, l).Dot(z0, z1, x, y0, y1)
}

// switchKey computes the gadget product of the polynomial in w.coef (coefficients)
// and own (transformed) with a key, divides it by P and hands each limb of the
// result to emit, in z0, z1, which emit may overwrite.
func (e *engine) switchKey(w *scratch, key *operand, l int, own func(i int) []uint64, emit func(i int, z0, z1 []uint64)) {
	e.prepareDigits(w, l)
	e.divideProduct(w, l, func(w *scratch, z0, z1 []uint64, from, to int, emit func(i int)) {
		e.digitGadget(w, from, to, l, own, func(i int, x [][]uint64) {
			e.dotKey(w, z0, z1, x, key, i, l)
			emit(i)
		})
	}, func(_ *scratch, i int, z0, z1 []uint64) { emit(i, z0, z1) })
}

// divideProduct divides a product modulo QP_l by P and hands each limb of the
// result to emit, in z0, z1, which emit may overwrite. product computes limbs
// from..to-1 of the product, hands each to its emit in z0, z1 and may use w.tmp
// from the second group on but for the last.
func (e *engine) divideProduct(w *scratch, l int, product func(w *scratch, z0, z1 []uint64, from, to int, emit func(i int)), emit func(w *scratch, i int, z0, z1 []uint64)) {
	np := len(e.p.P)
	p0, p1 := w.acc[:np], w.acc[np:2*np]
	e.halves(w, l+1, l+1+np, func(w *scratch, from, to int) {
		z0, z1 := w.acc[2*np], w.acc[2*np+1]
		product(w, z0, z1, from, to, func(i int) {
			m := e.mod(i, l)
			m.INTT(p0[i-l-1], z0)
			m.INTT(p1[i-l-1], z1)
		})
	})
	v0, v1 := w.v[len(w.v)-2], w.v[len(w.v)-1]
	b := e.pToQ
	if np > 1 {
		e.halves(w, 0, 2, func(w *scratch, from, to int) {
			e.prepare(w, b, p0, v0, from, to)
			e.prepare(w, b, p1, v1, from, to)
		})
	}
	e.halves(w, 0, l+1, func(w *scratch, lo, hi int) {
		z0, z1 := w.acc[2*np], w.acc[2*np+1]
		for from := lo; from < hi; from += e.group {
			n := min(e.group, hi-from)
			t := w.tmp[:n]
			targets := e.all[from : from+n]
			// What is subtracted before the division by P waits in rows that the product
			// does not use.
			u := w.tmp[len(w.tmp)-e.group : len(w.tmp)-e.group+n]
			b.Convert(t, targets, p0, v0)
			b.Convert(u, targets, p1, v1)
			product(w, z0, z1, from, from+n, func(i int) {
				m, t, u := e.mods[i], t[i-from], u[i-from]
				m.NTT(t, t)
				m.SubMul(z0, z0, t, b.Down(i))
				m.NTT(u, u)
				m.SubMul(z1, z1, u, b.Down(i))
				emit(w, i, z0, z1)
			})
		}
	})
}

// mulRelin multiplies two ciphertexts and brings the product back to degree one.
func (e *engine) mulRelin(w *scratch, out, a, b, key *operand) {
	l := out.t.Level
	e.halves(w, 0, l+1, func(w *scratch, from, to int) {
		for i := from; i < to; i++ {
			m := e.mods[i]
			m.Tensor(out.q(0, i), out.q(1, i), w.own[i], a.q(0, i), a.q(1, i), b.q(0, i), b.q(1, i))
			m.INTT(w.coef[i], w.own[i])
		}
	})
	e.switchKey(w, key, l, func(i int) []uint64 { return w.own[i] }, func(i int, z0, z1 []uint64) {
		m := e.mods[i]
		m.Add(out.q(0, i), out.q(0, i), z0)
		m.Add(out.q(1, i), out.q(1, i), z1)
	})
}

// rotate rotates the slots to the left.
func (e *engine) rotate(w *scratch, out, in, key *operand, rot int) {
	l := out.t.Level
	own := func(i int) []uint64 { return in.q(1, i) }
	e.coefficients(w, l, own)
	e.automorphism(&w.auto, rotation(e.p, rot))
	e.switchKey(w, key, l, own, func(i int, z0, z1 []uint64) {
		e.mods[i].Add(z0, z0, in.q(0, i))
		w.auto.Apply(out.q(0, i), z0)
		w.auto.Apply(out.q(1, i), z1)
	})
}

// realPart adds the complex conjugate.
func (e *engine) realPart(w *scratch, out, in, key *operand) {
	l := out.t.Level
	own := func(i int) []uint64 { return in.q(1, i) }
	e.coefficients(w, l, own)
	e.automorphism(&w.auto, conjugation(e.p))
	e.switchKey(w, key, l, own, func(i int, z0, z1 []uint64) {
		m := e.mods[i]
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
func (e *engine) raise(w *scratch, out, in, sparse, dense *operand) {
	l := out.t.Level
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
	digits := e.p.Digits(l)
	lift := func(z []uint64, k, i int) {
		m := e.mod(i, l)
		m.Centre(z, w.coef[k], q.Q, 1)
		m.NTT(z, z)
	}
	e.divideProduct(w, l, func(w *scratch, z0, z1 []uint64, from, to int, emit func(i int)) {
		x := w.tmp[e.group]
		for k := range digits {
			w.terms[k] = x
		}
		for i := from; i < to; i++ {
			lift(x, 1, i)
			e.dotKey(w, z0, z1, w.terms[:digits], dense, i, l)
			emit(i)
		}
	}, func(w *scratch, i int, z0, z1 []uint64) {
		x := w.tmp[e.group]
		lift(x, 0, i)
		e.mods[i].Add(out.q(0, i), z0, x)
		copy(out.q(1, i), z1)
	})
}

// hoistRot rotates a ciphertext whose digits are known; the result is P times
// the ciphertext, modulo QP.
func (e *engine) hoistRot(w *scratch, out, in, digits, key *operand, rot int) {
	l := out.t.Level
	e.automorphism(&w.auto, rotation(e.p, rot))
	d := e.p.Digits(l)
	e.halves(w, 0, l+1+len(e.p.P), func(w *scratch, from, to int) {
		for i := from; i < to; i++ {
			for k := range d {
				w.terms[k] = digits.qp(k, i, l)
			}
			if i <= l {
				e.rotateDot(w, out, i, in.q(0, i), e.pModQ[i], w.terms[:d], key, l)
			} else {
				e.rotateDot(w, out, i, nil, 0, w.terms[:d], key, l)
			}
		}
	})
}

// rotateDot sets limb i of out, an object modulo QP_l, to the image of f*a, if any, plus
// the product of the digits x with a key, and the image of their product with the other
// half of the key.
func (e *engine) rotateDot(w *scratch, out *operand, i int, a []uint64, f uint64, x [][]uint64, key *operand, l int) {
	y0, y1 := w.keyRows(key, len(x), i, l)
	e.mod(i, l).DotMap(out.q(0, i), out.q(1, i), a, f, x, y0, y1, &w.auto, e.far(l))
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
func (e *engine) giant(w *scratch, out, in, key *operand, rot int) {
	l, np := out.t.Level, len(e.p.P)
	p := w.acc[:np]
	for j := range np {
		e.mods[len(e.p.Q)+j].INTT(p[j], in.qp(1, l+1+j, l))
	}
	e.divide(w, e.pToQ, [][][]uint64{p}, l, func(_, i int, t []uint64, down uint64) {
		m := e.mods[i]
		m.SubMul(w.own[i], in.q(1, i), t, down)
		m.INTT(w.coef[i], w.own[i])
	})
	e.prepareDigits(w, l)
	e.automorphism(&w.auto, rotation(e.p, rot))
	own := func(i int) []uint64 { return w.own[i] }
	e.halves(w, 0, l+1+np, func(w *scratch, from, to int) {
		e.digitGadget(w, from, to, l, own, func(i int, x [][]uint64) {
			e.rotateDot(w, out, i, in.qp(0, i, l), 1, x, key, l)
		})
	})
}
