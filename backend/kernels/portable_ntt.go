package kernels

import "math/bits"

// portableTransform is the transform in plain Go.
type portableTransform struct {
	n     int
	fold  bool
	f, fs uint64   // of the fold before the transform
	g, gs uint64   // and after its inverse
	w, ws []uint64 // the layer with h blocks reads h..2h
	v, vs []uint64
	ninv  uint64
}

func newPortableTransform(p *Prime, t *Transform) portableTransform {
	quotients := func(w []uint64) []uint64 {
		s := make([]uint64, len(w))
		for i, x := range w {
			s[i] = p.quotient(x)
		}
		return s
	}
	out := portableTransform{n: t.N, fold: t.Fold, f: t.F, g: t.G, ninv: t.NInv}
	out.fs, out.gs = p.quotient(t.F), p.quotient(t.G)
	out.w, out.v = append([]uint64{}, t.Forward...), append([]uint64{}, t.Inverse...)
	out.ws, out.vs = quotients(out.w), quotients(out.v)
	return out
}

func (t *portableTransform) bytes() int64 { return 8 * 4 * int64(len(t.w)) }

// Gaps leaves eight residues at least.
func (m *portable) Gaps() int {
	g := 0
	for g < maxGaps && m.t.n>>(g+1) >= 8 {
		g++
	}
	return g
}

// forward is the butterfly of Harvey, x+y*w and x-y*w. It reduces y alone: results are
// 2q above the bound of x.
func forward(x, y, w, s, q, q2 uint64) (uint64, uint64) {
	y = lazy(y, w, s, q)
	return x + y, x + q2 - y
}

// forwardBelow is forward for x below 8q; results are below 6q.
func forwardBelow(x, y, w, s, q, q2, q4 uint64) (uint64, uint64) {
	return forward(below(x, q4), y, w, s, q, q2)
}

// inverse is its inverse: x, y below 2q become x+y and (x-y)*w below 2q.
func inverse(x, y, w, s, q, q2 uint64) (uint64, uint64) {
	return below(x+y, q2), lazy(x+q2-y, w, s, q)
}

// NTT runs one layer if need be, then two at a time, and the last three together. Of
// two layers only the second reduces its first operands: residues that enter a pair
// are below 6q, those between its layers below 8q.
func (m *portable) NTT(z, x []uint64) {
	t, q, n := &m.t, m.Q, len(z)
	if t.fold {
		m.foldEnds(z, x, t.f, t.fs, n/2)
	} else if &z[0] != &x[0] {
		copy(z, x)
	}
	h, d := 1, n/2 // blocks, and half their size
	if bits.Len(uint(n))%2 == 1 {
		forward2(z[:d], z[d:], t.w[1], t.ws[1], q)
		h, d = 2, d/2
	}
	for ; d >= 16; h, d = 4*h, d/4 {
		for b := range h {
			y, e, k := z[2*d*b:2*d*(b+1)], d/2, h+b
			forward4(y[:e], y[e:d], y[d:d+e], y[d+e:], (*[2]uint64)(t.w[2*k:]), (*[2]uint64)(t.ws[2*k:]), t.w[k], t.ws[k], q)
		}
	}
	m.forwardLast(z)
}

// forward2 is a layer on the halves of a block.
func forward2(a, b []uint64, w, s, q uint64) {
	q2 := 2 * q
	b = b[:len(a)]
	for i := range a {
		a[i], b[i] = forward(a[i], b[i], w, s, q, q2)
	}
}

// forward4 is two layers on the quarters of a block: w and s belong to the first.
func forward4(a, b, c, d []uint64, v, r *[2]uint64, w, s, q uint64) {
	q2, q4 := 2*q, 4*q
	v0, r0, v1, r1 := v[0], r[0], v[1], r[1]
	b, c, d = b[:len(a)], c[:len(a)], d[:len(a)]
	for i := range a {
		x0, x2 := forward(a[i], c[i], w, s, q, q2)
		x1, x3 := forward(b[i], d[i], w, s, q, q2)
		a[i], b[i] = forwardBelow(x0, x1, v0, r0, q, q2, q4)
		c[i], d[i] = forwardBelow(x2, x3, v1, r1, q, q2, q4)
	}
}

// forwardLast is the last three layers, on residues below 6q, and the full reduction.
func (m *portable) forwardLast(row []uint64) {
	t, q, h := &m.t, m.Q, len(row)/8
	q2, q4 := 2*q, 4*q
	full := func(x uint64) uint64 { return below(below(below(x, q4), q2), q) }
	for b := range h {
		z := eight(row, 8*b)
		w, s := t.w[h+b], t.ws[h+b]
		a0, a4 := forward(z[0], z[4], w, s, q, q2)
		a1, a5 := forward(z[1], z[5], w, s, q, q2)
		a2, a6 := forward(z[2], z[6], w, s, q, q2)
		a3, a7 := forward(z[3], z[7], w, s, q, q2)
		v, r := (*[2]uint64)(t.w[2*(h+b):]), (*[2]uint64)(t.ws[2*(h+b):])
		a0, a2 = forwardBelow(a0, a2, v[0], r[0], q, q2, q4)
		a1, a3 = forwardBelow(a1, a3, v[0], r[0], q, q2, q4)
		a4, a6 = forwardBelow(a4, a6, v[1], r[1], q, q2, q4)
		a5, a7 = forwardBelow(a5, a7, v[1], r[1], q, q2, q4)
		u, p := (*[4]uint64)(t.w[4*(h+b):]), (*[4]uint64)(t.ws[4*(h+b):])
		a0, a1 = forward(a0, a1, u[0], p[0], q, q2)
		z[0], z[1] = full(a0), full(a1)
		a2, a3 = forward(a2, a3, u[1], p[1], q, q2)
		z[2], z[3] = full(a2), full(a3)
		a4, a5 = forward(a4, a5, u[2], p[2], q, q2)
		z[4], z[5] = full(a4), full(a5)
		a6, a7 = forward(a6, a7, u[3], p[3], q, q2)
		z[6], z[7] = full(a6), full(a7)
	}
}

func (m *portable) INTT(z, x []uint64) {
	t, q := &m.t, m.Q
	q2, n := 2*q, len(z)
	for b := range n / 8 { // the first three layers
		x, z, h := eight(x, 8*b), eight(z, 8*b), n/8+b
		u, p := (*[4]uint64)(t.v[4*h:]), (*[4]uint64)(t.vs[4*h:])
		a0, a1 := inverse(x[0], x[1], u[0], p[0], q, q2)
		a2, a3 := inverse(x[2], x[3], u[1], p[1], q, q2)
		a4, a5 := inverse(x[4], x[5], u[2], p[2], q, q2)
		a6, a7 := inverse(x[6], x[7], u[3], p[3], q, q2)
		v, r := (*[2]uint64)(t.v[2*h:]), (*[2]uint64)(t.vs[2*h:])
		a0, a2 = inverse(a0, a2, v[0], r[0], q, q2)
		a1, a3 = inverse(a1, a3, v[0], r[0], q, q2)
		a4, a6 = inverse(a4, a6, v[1], r[1], q, q2)
		a5, a7 = inverse(a5, a7, v[1], r[1], q, q2)
		w, s := t.v[h], t.vs[h]
		z[0], z[4] = inverse(a0, a4, w, s, q, q2)
		z[1], z[5] = inverse(a1, a5, w, s, q, q2)
		z[2], z[6] = inverse(a2, a6, w, s, q, q2)
		z[3], z[7] = inverse(a3, a7, w, s, q, q2)
	}
	for h, d := n/16, 8; h > 0; h, d = h/2, 2*d {
		for b := range h {
			w, s := t.v[h+b], t.vs[h+b]
			for i := 2 * d * b; i < d*(2*b+1); i += 8 {
				z0, z1 := eight(z, i), eight(z, i+d)
				z0[0], z1[0] = inverse(z0[0], z1[0], w, s, q, q2)
				z0[1], z1[1] = inverse(z0[1], z1[1], w, s, q, q2)
				z0[2], z1[2] = inverse(z0[2], z1[2], w, s, q, q2)
				z0[3], z1[3] = inverse(z0[3], z1[3], w, s, q, q2)
				z0[4], z1[4] = inverse(z0[4], z1[4], w, s, q, q2)
				z0[5], z1[5] = inverse(z0[5], z1[5], w, s, q, q2)
				z0[6], z1[6] = inverse(z0[6], z1[6], w, s, q, q2)
				z0[7], z1[7] = inverse(z0[7], z1[7], w, s, q, q2)
			}
		}
	}
	if t.fold {
		m.foldEnds(z, z, t.g, t.gs, n/2)
		z[0] *= 2
	}
	m.MulConst(z, z, t.ninv)
}

// foldEnds is the step between the conjugate-invariant ring and the transform: z[j] =
// x[j] - f*x[n-j], for j and n-j, j = 0..to-1, and for j = n/2; entry 0 is copied.
// Entries below 4q give such.
func (p *Prime) foldEnds(z, x []uint64, f, s uint64, to int) {
	q, q2, n := p.Q, 2*p.Q, len(z)
	z[0] = x[0]
	for j := 1; j < to; j++ {
		a, b := x[j], x[n-j]
		z[j], z[n-j] = below(a, q2)+q2-lazy(b, f, s, q), below(b, q2)+q2-lazy(a, f, s, q)
	}
	z[n/2] = below(x[n/2], q2) + q2 - lazy(x[n/2], f, s, q)
}
