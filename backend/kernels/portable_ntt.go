package kernels

import "math/bits"

// portableTransform is the transform in plain Go. It takes two layers at a time, four
// residues in registers, and goes through all layers of a part of the row that the
// first cache holds before it turns to the next. Between layers residues grow: those of
// the forward transform by 2q a layer, sums of the inverse to twice as much. They are
// reduced when a word would not hold them after the next two: never, for primes below
// 2^47 and up to 2^16 points.
type portableTransform struct {
	n                int
	fold             bool
	f, g             root   // of the fold before the transform and after its inverse
	forward, inverse []root // the layer with h blocks reads h..2h
	ninv             root
	last             root   // of the last layer of the inverse, over N
	room             uint64 // words hold residues below room*q
}

// root is a factor below q and its quotient.
type root struct{ w, s uint64 }

func (p *Prime) root(w uint64) root { return root{w, p.quotient(w)} }

// times returns x*r mod q in [0, 2q), for any word x.
func (r *root) times(x, q uint64) uint64 { return lazy(x, r.w, r.s, q) }

func newPortableTransform(p *Prime, t *Transform) portableTransform {
	roots := func(w []uint64) []root {
		r := make([]root, len(w))
		for i, x := range w {
			r[i] = p.root(x)
		}
		return r
	}
	return portableTransform{
		n: t.N, fold: t.Fold, f: p.root(t.F), g: p.root(t.G), forward: roots(t.Forward), inverse: roots(t.Inverse),
		ninv: p.root(t.NInv), last: p.root(p.Times(t.Inverse[1], t.NInv)), room: ^uint64(0) / p.Q,
	}
}

func (t *portableTransform) bytes() int64 { return 16 * int64(len(t.forward)+len(t.inverse)) }

// near is the number of residues that go through all their layers at once: half of a
// first cache of 32 KiB, or less.
const near = 2048

// quad is what two layers on the quarters of a block need: the roots of the layer of two
// halves and of the other, and a bound; see forward4 and inverse4.
type quad struct {
	f     root
	g     [2]root
	bound uint64
}

// NTT runs one layer if need be, then two at a time, and the last one, which reduces in
// full.
func (m *portable) NTT(z, x []uint64) {
	t, n := &m.t, len(z)
	if t.fold {
		m.foldEnds(z, x, t.f.w, t.f.s, n/2)
	} else if &z[0] != &x[0] {
		copy(z, x)
	}
	b := uint64(4)   // residues are below b*q
	first, d := 1, n // the number of the first block, of those of all layers, and its size
	if bits.Len(uint(n))%2 == 1 {
		forward2(z[:d/2], z[d/2:], t.forward[1], m.Q)
		first, d, b = 2, d/2, b+2
	}
	for ; d > near; first, d = 4*first, d/4 {
		b = m.forwardPair(z, first, d, b)
	}
	for k := range n / d {
		y, first, d, b := z[d*k:d*(k+1)], first+k, d, b
		for ; d > 8; first, d = 4*first, d/4 {
			b = m.forwardPair(y, first, d, b)
		}
		c, b := m.lower(b, 4)
		forward8(y, t.forward[first:], t.forward[2*first:], m.Q, c)
		c, _ = m.lower(b, 2)
		m.forwardLast(y, t.forward[4*first:], c)
	}
}

// lower returns what the first operands of a layer, below b*q, are to be compared with
// and reduced by for the results to fit a word, or 0, and the bound of the results after
// layers that add so many q.
func (m *portable) lower(b, add uint64) (by, after uint64) {
	if b+add <= m.t.room {
		return 0, b + add
	}
	b = (b + 1) / 2
	return b * m.Q, b + add
}

// forwardPair is two layers on blocks of d residues, from the block of that number on.
func (m *portable) forwardPair(z []uint64, first, d int, b uint64) uint64 {
	by, b := m.lower(b, 4)
	e := d / 4
	for k, f := range m.t.forward[first : first+len(z)/d] {
		y := z[d*k : d*(k+1)]
		r := quad{f, [2]root(m.t.forward[2*(first+k):]), by}
		forward4(y[:e], y[e:2*e], y[2*e:3*e], y[3*e:], &r, m.Q)
	}
	return b
}

// forward is the butterfly of Harvey, x+y*w and x-y*w. It reduces y alone: results are
// 2q above the bound of x.
func forward(x, y, w, s, q, q2 uint64) (uint64, uint64) {
	y = lazy(y, w, s, q)
	return x + y, x + q2 - y
}

// forward2 is a layer on the halves of a block.
func forward2(a, b []uint64, r root, q uint64) {
	w, s, q2 := r.w, r.s, 2*q
	b = b[:len(a)]
	for i := range a {
		a[i], b[i] = forward(a[i], b[i], w, s, q, q2)
	}
}

// forward4 is two layers on the quarters of a block, which it lowers to half of twice
// the bound first, if there is one. It spells its products out, and takes roots from
// memory, for the compiler keeps all else in registers then.
func forward4(a, b, c, d []uint64, r *quad, q uint64) {
	b, c, d = b[:len(a)], c[:len(a)], d[:len(a)]
	for i := range a {
		x2, x3 := c[i], d[i]
		h, _ := bits.Mul64(x2, r.f.s)
		x2 = x2*r.f.w - h*q
		h, _ = bits.Mul64(x3, r.f.s)
		x3 = x3*r.f.w - h*q
		x0, x1 := a[i], b[i]
		if r.bound != 0 {
			x0, x1 = below(x0, r.bound), below(x1, r.bound)
		}
		y0, y1 := x0+x2, x1+x3
		x0, x1 = x0+2*q-x2, x1+2*q-x3
		h, _ = bits.Mul64(y1, r.g[0].s)
		y1 = y1*r.g[0].w - h*q
		a[i] = y0 + y1
		b[i] = y0 + 2*q - y1
		h, _ = bits.Mul64(x1, r.g[1].s)
		x1 = x1*r.g[1].w - h*q
		c[i] = x0 + x1
		d[i] = x0 + 2*q - x1
	}
}

// forward8 is the same on blocks of eight.
func forward8(z []uint64, f, g []root, q, bound uint64) {
	for k := range len(z) / 8 {
		y, f, g := eight(z, 8*k), &f[k], (*[2]root)(g[2*k:])
		for i := range 2 {
			x0, x1 := y[i], y[i+2]
			if bound != 0 {
				x0, x1 = below(x0, bound), below(x1, bound)
			}
			x2, x3 := f.times(y[i+4], q), f.times(y[i+6], q)
			x0, x2 = x0+x2, x0+2*q-x2
			x1, x3 = x1+x3, x1+2*q-x3
			x1, x3 = g[0].times(x1, q), g[1].times(x3, q)
			y[i], y[i+2] = x0+x1, x0+2*q-x1
			y[i+4], y[i+6] = x2+x3, x2+2*q-x3
		}
	}
}

// forwardLast is the layer of neighbours and the full reduction.
func (m *portable) forwardLast(z []uint64, r []root, bound uint64) {
	q, bar := m.Q, m.bar
	for i := 0; i < len(z); i += 8 {
		y, r := eight(z, i), (*[4]root)(r[i/2:])
		x := y[0]
		if bound != 0 {
			x = below(x, bound)
		}
		t := r[0].times(y[1], q)
		y[0], y[1] = full(x+t, q, bar), full(x+2*q-t, q, bar)
		x = y[2]
		if bound != 0 {
			x = below(x, bound)
		}
		t = r[1].times(y[3], q)
		y[2], y[3] = full(x+t, q, bar), full(x+2*q-t, q, bar)
		x = y[4]
		if bound != 0 {
			x = below(x, bound)
		}
		t = r[2].times(y[5], q)
		y[4], y[5] = full(x+t, q, bar), full(x+2*q-t, q, bar)
		x = y[6]
		if bound != 0 {
			x = below(x, bound)
		}
		t = r[3].times(y[7], q)
		y[6], y[7] = full(x+t, q, bar), full(x+2*q-t, q, bar)
	}
}

// full returns x mod q, for any word x.
func full(x, q, bar uint64) uint64 { return below(x-mulHi(x, bar)*q, q) }

// INTT runs the layers backwards: one, then two at a time, and the last one or two with
// the division by N.
func (m *portable) INTT(z, x []uint64) {
	t, q, n := &m.t, m.Q, len(z)
	d := 8
	for n/d >= 8 && 4*d <= near {
		d *= 4
	}
	b := uint64(2)
	for k := range n / d {
		y, first := z[d*k:d*(k+1)], n/d+k
		inverseFirst(y, x[d*k:d*(k+1)], t.inverse[first*d/2:], q)
		bar, c := m.raise(2)
		inverse8(y, t.inverse[first*d/8:], t.inverse[first*d/4:], q, 2*q, bar)
		for e := 32; e <= d; e *= 4 {
			c = m.inversePair(y, first*d/e, e, c)
		}
		b = c
	}
	for n/d >= 8 {
		d *= 4
		b = m.inversePair(z, n/d, d, b)
	}
	switch n / d {
	case 1:
		m.MulConst(z, z, t.ninv.w)
	case 2:
		inverseLast2(z[:d], z[d:], &t.ninv, &t.last, q, b*q)
	default:
		r := quad{t.last, [2]root(t.inverse[2:4]), 0}
		inverseLast4(z[:d], z[d:2*d], z[2*d:3*d], z[3*d:], &r, &t.ninv, q, b*q)
	}
	if t.fold {
		m.unfoldEnds(z)
	}
}

// raise returns the bound of results of two layers on residues below b*q, and 0, or that
// of reduced results and the constant to reduce by, where two layers more would not fit
// a word otherwise.
func (m *portable) raise(b uint64) (bar, after uint64) {
	if 16*b <= m.t.room {
		return 0, 4 * b
	}
	return m.bar, 2
}

// inversePair is two layers on blocks of d residues, the block of that number being the
// first.
func (m *portable) inversePair(z []uint64, first, d int, b uint64) uint64 {
	offset := b * m.Q
	bar, b := m.raise(b)
	e := d / 4
	for k, f := range m.t.inverse[first : first+len(z)/d] {
		y := z[d*k : d*(k+1)]
		r := quad{f, [2]root(m.t.inverse[2*(first+k):]), bar}
		inverse4(y[:e], y[e:2*e], y[2*e:3*e], y[3*e:], &r, m.Q, offset)
	}
	return b
}

// inverse is the inverse of forward: x+y and (x-y)*w, for y up to the offset, a multiple
// of q.
func inverse(x, y uint64, r *root, q, offset uint64) (uint64, uint64) {
	return x + y, r.times(x+offset-y, q)
}

// inverseFirst is the layer of neighbours, on reduced residues. Results are below 2q.
func inverseFirst(z, x []uint64, r []root, q uint64) {
	x = x[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, x, r := eight(z, i), eight(x, i), (*[4]root)(r[i/2:])
		z[0], z[1] = inverse(x[0], x[1], &r[0], q, q)
		z[2], z[3] = inverse(x[2], x[3], &r[1], q, q)
		z[4], z[5] = inverse(x[4], x[5], &r[2], q, q)
		z[6], z[7] = inverse(x[6], x[7], &r[3], q, q)
	}
}

// inverse4 is two layers on the quarters of a block, of residues up to the offset, a
// multiple of q. Results are below four times that, and below 2q if the bound, the
// constant to reduce by, is not 0. Like forward4 it spells its products out.
func inverse4(a, b, c, d []uint64, r *quad, q, offset uint64) {
	b, c, d = b[:len(a)], c[:len(a)], d[:len(a)]
	for i := range a {
		x0, x1 := a[i], b[i]
		y1 := x0 + offset - x1
		x0 += x1
		h, _ := bits.Mul64(y1, r.g[0].s)
		y1 = y1*r.g[0].w - h*q
		x2, x3 := c[i], d[i]
		y3 := x2 + offset - x3
		x2 += x3
		h, _ = bits.Mul64(y3, r.g[1].s)
		y3 = y3*r.g[1].w - h*q
		s, t := x0+x2, y1+y3
		if r.bound != 0 {
			h, _ = bits.Mul64(s, r.bound)
			s, t = s-h*q, below(t, 2*q)
		}
		a[i], b[i] = s, t
		x0, y1 = x0+2*offset-x2, y1+2*q-y3
		h, _ = bits.Mul64(x0, r.f.s)
		c[i] = x0*r.f.w - h*q
		h, _ = bits.Mul64(y1, r.f.s)
		d[i] = y1*r.f.w - h*q
	}
}

// inverse8 is the same on blocks of eight.
func inverse8(z []uint64, f, g []root, q, offset, bar uint64) {
	for k := range len(z) / 8 {
		y, f, g := eight(z, 8*k), &f[k], (*[2]root)(g[2*k:])
		for i := range 2 {
			x0, x1 := inverse(y[i], y[i+2], &g[0], q, offset)
			x2, x3 := inverse(y[i+4], y[i+6], &g[1], q, offset)
			s, t := x0+x2, x1+x3
			if bar != 0 {
				s, t = s-mulHi(s, bar)*q, below(t, 2*q)
			}
			y[i], y[i+2] = s, t
			y[i+4], y[i+6] = f.times(x0+2*offset-x2, q), f.times(x1+2*q-x3, q)
		}
	}
}

// inverseLast2 is the last layer and the full reduction, r being over N.
func inverseLast2(a, b []uint64, ninv, r *root, q, offset uint64) {
	b = b[:len(a)]
	for i := range a {
		x, y := a[i], b[i]
		a[i], b[i] = below(ninv.times(x+y, q), q), below(r.times(x+offset-y, q), q)
	}
}

// inverseLast4 is the last two layers and the full reduction, r.f being over N.
func inverseLast4(a, b, c, d []uint64, r *quad, ninv *root, q, offset uint64) {
	b, c, d = b[:len(a)], c[:len(a)], d[:len(a)]
	for i := range a {
		x0, x1 := inverse(a[i], b[i], &r.g[0], q, offset)
		x2, x3 := inverse(c[i], d[i], &r.g[1], q, offset)
		a[i], b[i] = below(ninv.times(x0+x2, q), q), below(ninv.times(x1+x3, q), q)
		c[i], d[i] = below(r.f.times(x0+2*offset-x2, q), q), below(r.f.times(x1+2*q-x3, q), q)
	}
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

// unfoldEnds is its inverse, on reduced residues.
func (m *portable) unfoldEnds(z []uint64) {
	q, n, g := m.Q, len(z), m.t.g
	z[0] = below(2*z[0], q)
	for j := 1; j < n/2; j++ {
		a, b := z[j], z[n-j]
		z[j], z[n-j] = below(a+q-below(g.times(b, q), q), q), below(b+q-below(g.times(a, q), q), q)
	}
	z[n/2] = below(z[n/2]+q-below(g.times(z[n/2], q), q), q)
}
