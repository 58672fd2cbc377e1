package lattigo

// This file holds the steps that need transforms: rescaling, ModDown, gadget
// decomposition and key switching. All of them go prime by prime, so that their
// working set is a few limbs.

// rescale divides by q_{l+1}, rounding, l being the level of out.
func (e *engine) rescale(w *scratch, out, in *operand) {
	l := out.t.Level
	last := e.mods[l+1]
	b := e.scale[l+1]
	x, t, v := w.acc[:1], w.acc[1], w.v[0]
	for k := range 2 {
		last.intt(x[0], in.q(k, l+1))
		b.prepare(x, v)
		for i := range l + 1 {
			m := e.mods[i]
			b.convert(t, i, m, x, v)
			m.ntt(t, t)
			m.subMulRow(out.q(k, i), in.q(k, i), t, b.down[i])
		}
	}
}

// modDown divides both parts by P, rounding.
func (e *engine) modDown(w *scratch, out, in *operand) {
	l, np := out.t.Level, len(e.p.P)
	x, t, v := w.acc[:np], w.acc[np], w.v[0]
	for k := range 2 {
		for j := range np {
			e.mods[len(e.p.Q)+j].intt(x[j], in.qp(k, l+1+j, l))
		}
		e.pToQ.prepare(x, v)
		for i := range l + 1 {
			m := e.mods[i]
			e.pToQ.convert(t, i, m, x, v)
			m.ntt(t, t)
			m.subMulRow(out.q(k, i), in.q(k, i), t, e.pToQ.down[i])
		}
	}
}

// prepareDigits turns w.coef[0..l], coefficients of a polynomial modulo Q_l, into
// prepared digits.
func (e *engine) prepareDigits(w *scratch, l int) {
	for d := range e.p.Digits(l) {
		from, to := e.group(d, l)
		e.digitBasis(d, l).prepare(w.coef[from:to], w.v[d])
	}
}

// digitLimb writes digit d modulo limb i of QP_l, transformed, into t and
// returns it; where the limb belongs to the digit it is own(i) itself.
func (e *engine) digitLimb(w *scratch, t []uint64, d, i, l int, own func(i int) []uint64) []uint64 {
	from, to := e.group(d, l)
	if i >= from && i < to {
		return own(i)
	}
	m := e.mod(i, l)
	e.digitBasis(d, l).convert(t, e.target(i, l), m, w.coef[from:to], w.v[d])
	m.ntt(t, t)
	return t
}

// decompose writes the digits of c1.
func (e *engine) decompose(w *scratch, out, in *operand) {
	l := out.t.Level
	for i := range l + 1 {
		e.mods[i].intt(w.coef[i], in.q(1, i))
	}
	e.prepareDigits(w, l)
	own := func(i int) []uint64 { return in.q(1, i) }
	for d := range e.p.Digits(l) {
		for i := range l + 1 + len(e.p.P) {
			z := out.q(d, i)
			copyRow(z, e.digitLimb(w, z, d, i, l, own))
		}
	}
}

// gadgetLimb writes limb i of the product of the prepared digits with a key,
// modulo QP_l.
func (e *engine) gadgetLimb(w *scratch, z0, z1 []uint64, key *operand, i, l int, own func(i int) []uint64) {
	d := e.p.Digits(l)
	for k := range d {
		w.x[k] = e.digitLimb(w, w.tmp[k], k, i, l, own)
	}
	e.dotKey(w, z0, z1, w.x[:d], key, i, l)
}

func (e *engine) dotKey(w *scratch, z0, z1 []uint64, x [][]uint64, key *operand, i, l int) {
	for k := range x {
		w.y0[k], w.y1[k] = key.qp(2*k, i, l), key.qp(2*k+1, i, l)
	}
	e.mod(i, l).dotRows(z0, z1, x, w.y0[:len(x)], w.y1[:len(x)])
}

// switchKey computes the gadget product of the polynomial in w.coef (coefficients)
// and own (transformed) with a key, divides it by P and hands each limb of the
// result to emit, in z0, z1, which emit may overwrite.
func (e *engine) switchKey(w *scratch, key *operand, l int, own func(i int) []uint64, emit func(i int, z0, z1 []uint64)) {
	np := len(e.p.P)
	e.prepareDigits(w, l)
	p0, p1 := w.acc[:np], w.acc[np:2*np]
	z0, z1 := w.acc[2*np], w.acc[2*np+1]
	for j := range np {
		e.gadgetLimb(w, p0[j], p1[j], key, l+1+j, l, own)
		m := e.mods[len(e.p.Q)+j]
		m.intt(p0[j], p0[j])
		m.intt(p1[j], p1[j])
	}
	v0, v1 := w.v[len(w.v)-2], w.v[len(w.v)-1]
	e.pToQ.prepare(p0, v0)
	e.pToQ.prepare(p1, v1)
	t := w.tmp[0]
	for i := range l + 1 {
		m := e.mods[i]
		e.gadgetLimb(w, z0, z1, key, i, l, own)
		e.pToQ.convert(t, i, m, p0, v0)
		m.ntt(t, t)
		m.subMulRow(z0, z0, t, e.pToQ.down[i])
		e.pToQ.convert(t, i, m, p1, v1)
		m.ntt(t, t)
		m.subMulRow(z1, z1, t, e.pToQ.down[i])
		emit(i, z0, z1)
	}
}

// mulRelin multiplies two ciphertexts and brings the product back to degree one.
func (e *engine) mulRelin(w *scratch, out, a, b, key *operand) {
	l := out.t.Level
	square := &a.rows[0][0] == &b.rows[0][0]
	for i := range l + 1 {
		m := e.mods[i]
		if square {
			m.squareRow(out.q(0, i), out.q(1, i), w.own[i], a.q(0, i), a.q(1, i))
		} else {
			m.tensorRow(out.q(0, i), out.q(1, i), w.own[i], a.q(0, i), a.q(1, i), b.q(0, i), b.q(1, i))
		}
		m.intt(w.coef[i], w.own[i])
	}
	e.switchKey(w, key, l, func(i int) []uint64 { return w.own[i] }, func(i int, z0, z1 []uint64) {
		m := e.mods[i]
		m.addRow(out.q(0, i), out.q(0, i), z0)
		m.addRow(out.q(1, i), out.q(1, i), z1)
	})
}

// rotate rotates the slots to the left.
func (e *engine) rotate(w *scratch, out, in, key *operand, rot int) {
	l := out.t.Level
	for i := range l + 1 {
		e.mods[i].intt(w.coef[i], in.q(1, i))
	}
	e.automorphism(w.from, &w.lanes, e.galois(rot))
	e.switchKey(w, key, l, func(i int) []uint64 { return in.q(1, i) }, func(i int, z0, z1 []uint64) {
		e.mods[i].addRow(z0, z0, in.q(0, i))
		e.permuteRow(out.q(0, i), z0, w.from, &w.lanes)
		e.permuteRow(out.q(1, i), z1, w.from, &w.lanes)
	})
}

// hoistRot rotates a ciphertext whose digits are known; the result is P times
// the ciphertext, modulo QP.
func (e *engine) hoistRot(w *scratch, out, in, digits, key *operand, rot int) {
	l, np := out.t.Level, len(e.p.P)
	e.automorphism(w.from, &w.lanes, e.galois(rot))
	z0, z1 := w.acc[2*np], w.acc[2*np+1]
	d := e.p.Digits(l)
	for i := range l + 1 + np {
		for k := range d {
			w.x[k] = digits.qp(k, i, l)
		}
		e.dotKey(w, z0, z1, w.x[:d], key, i, l)
		if i <= l {
			e.mods[i].macScalarRow(z0, z0, in.q(0, i), e.pModQ[i])
		}
		e.permuteRow(out.q(0, i), z0, w.from, &w.lanes)
		e.permuteRow(out.q(1, i), z1, w.from, &w.lanes)
	}
}

// giant rotates a ciphertext modulo QP: c1 is divided by P and switched, c0 stays
// as it is, so that one ModDown serves the sum of many giant steps.
func (e *engine) giant(w *scratch, out, in, key *operand, rot int) {
	l, np := out.t.Level, len(e.p.P)
	p, v, t := w.acc[:np], w.v[len(w.v)-1], w.tmp[0]
	for j := range np {
		e.mods[len(e.p.Q)+j].intt(p[j], in.qp(1, l+1+j, l))
	}
	e.pToQ.prepare(p, v)
	for i := range l + 1 {
		m := e.mods[i]
		e.pToQ.convert(t, i, m, p, v)
		m.ntt(t, t)
		m.subMulRow(w.own[i], in.q(1, i), t, e.pToQ.down[i])
		m.intt(w.coef[i], w.own[i])
	}
	e.prepareDigits(w, l)
	e.automorphism(w.from, &w.lanes, e.galois(rot))
	z0, z1 := w.acc[2*np], w.acc[2*np+1]
	own := func(i int) []uint64 { return w.own[i] }
	for i := range l + 1 + np {
		e.gadgetLimb(w, z0, z1, key, i, l, own)
		e.mod(i, l).addRow(z0, z0, in.qp(0, i, l))
		e.permuteRow(out.q(0, i), z0, w.from, &w.lanes)
		e.permuteRow(out.q(1, i), z1, w.from, &w.lanes)
	}
}
