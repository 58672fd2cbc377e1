package kernels

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

// forward is the butterfly of Harvey: x, y below 4q become x+y*w and x-y*w below 4q.
func forward(x, y, w, s, q, q2 uint64) (uint64, uint64) {
	x, y = below(x, q2), lazy(y, w, s, q)
	return x + y, x + q2 - y
}

// inverse is its inverse: x, y below 2q become x+y and (x-y)*w below 2q.
func inverse(x, y, w, s, q, q2 uint64) (uint64, uint64) {
	return below(x+y, q2), lazy(x+q2-y, w, s, q)
}

func (m *portable) NTT(z, x []uint64) {
	t, q := &m.t, m.Q
	q2, n := 2*q, len(z)
	if t.fold {
		m.foldEnds(z, x, t.f, t.fs, n/2)
		x = z
	}
	h, d := 1, n/2 // blocks, and half their size
	for ; d >= 8; h, d = 2*h, d/2 {
		for b := range h {
			w, s := t.w[h+b], t.ws[h+b]
			for i := 2 * d * b; i < d*(2*b+1); i += 8 {
				x0, x1, z0, z1 := eight(x, i), eight(x, i+d), eight(z, i), eight(z, i+d)
				z0[0], z1[0] = forward(x0[0], x1[0], w, s, q, q2)
				z0[1], z1[1] = forward(x0[1], x1[1], w, s, q, q2)
				z0[2], z1[2] = forward(x0[2], x1[2], w, s, q, q2)
				z0[3], z1[3] = forward(x0[3], x1[3], w, s, q, q2)
				z0[4], z1[4] = forward(x0[4], x1[4], w, s, q, q2)
				z0[5], z1[5] = forward(x0[5], x1[5], w, s, q, q2)
				z0[6], z1[6] = forward(x0[6], x1[6], w, s, q, q2)
				z0[7], z1[7] = forward(x0[7], x1[7], w, s, q, q2)
			}
		}
		x = z
	}
	for b := range h { // the last three layers, and full reduction
		x, z := eight(x, 8*b), eight(z, 8*b)
		w, s := t.w[h+b], t.ws[h+b]
		a0, a4 := forward(x[0], x[4], w, s, q, q2)
		a1, a5 := forward(x[1], x[5], w, s, q, q2)
		a2, a6 := forward(x[2], x[6], w, s, q, q2)
		a3, a7 := forward(x[3], x[7], w, s, q, q2)
		v, r := (*[2]uint64)(t.w[2*(h+b):]), (*[2]uint64)(t.ws[2*(h+b):])
		a0, a2 = forward(a0, a2, v[0], r[0], q, q2)
		a1, a3 = forward(a1, a3, v[0], r[0], q, q2)
		a4, a6 = forward(a4, a6, v[1], r[1], q, q2)
		a5, a7 = forward(a5, a7, v[1], r[1], q, q2)
		u, p := (*[4]uint64)(t.w[4*(h+b):]), (*[4]uint64)(t.ws[4*(h+b):])
		a0, a1 = forward(a0, a1, u[0], p[0], q, q2)
		a2, a3 = forward(a2, a3, u[1], p[1], q, q2)
		a4, a5 = forward(a4, a5, u[2], p[2], q, q2)
		a6, a7 = forward(a6, a7, u[3], p[3], q, q2)
		z[0], z[1] = below(below(a0, q2), q), below(below(a1, q2), q)
		z[2], z[3] = below(below(a2, q2), q), below(below(a3, q2), q)
		z[4], z[5] = below(below(a4, q2), q), below(below(a5, q2), q)
		z[6], z[7] = below(below(a6, q2), q), below(below(a7, q2), q)
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
func (m *Prime) foldEnds(z, x []uint64, f, s uint64, to int) {
	q, q2, n := m.Q, 2*m.Q, len(z)
	z[0] = x[0]
	for j := 1; j < to; j++ {
		a, b := x[j], x[n-j]
		z[j], z[n-j] = below(a, q2)+q2-lazy(b, f, s, q), below(b, q2)+q2-lazy(a, f, s, q)
	}
	z[n/2] = below(x[n/2], q2) + q2 - lazy(x[n/2], f, s, q)
}
