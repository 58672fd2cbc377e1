package kernels

import "math/bits"

// dq is the form on AVX-512 DQ: 64-bit products of 32-bit halves, for all primes.
type dq struct {
	portable
	one   uint64 // 2^64 mod q
	n     int    // residues of a transformed row
	fold  bool   // conjugate-invariant ring
	w, ws []uint64
	last  []uint64
	v, vs []uint64
	first []uint64
	f, fs uint64
	g, gs uint64
	ninv  uint64
}

// newDQRows is newDQ without transforms.
func newDQRows(p Prime) dq { return dq{portable: portable{Prime: p}, one: p.form64(1)} }

func newDQ(p Prime, t *Transform) *dq {
	m := newDQRows(p)
	m.n, m.fold, m.f, m.g, m.ninv = t.N, t.Fold, t.F, t.G, t.NInv
	m.fs, m.gs = m.quotient(m.f), m.quotient(m.g)
	m.w, m.ws = outer(t.Forward, m.quotient)
	m.v, m.vs = outer(t.Inverse, m.quotient)
	m.last, m.first = m.blocks(t.Forward), m.blocks(t.Inverse)
	return &m
}

func (m *dq) Form() Form { return DQ }

func (m *dq) Bytes() int64 {
	return 8 * int64(len(m.w)+len(m.ws)+len(m.v)+len(m.vs)+len(m.last)+len(m.first))
}

// outer copies the roots of the layers down to blocks of 128 residues, and adds their
// quotients.
func outer(roots []uint64, quotient func(uint64) uint64) (w, s []uint64) {
	w = append(w, roots[:max(2, len(roots)/64)]...)
	s = make([]uint64, len(w))
	for i := 1; i < len(w); i++ { // there is no root 0
		s[i] = quotient(w[i])
	}
	return w, s
}

// dqBlockWords is the number of words of factors of a block of 64 residues.
const dqBlockWords = 128

// blocks gathers the roots of the six innermost layers, block by block, as the
// assembly reads them: see block in gen/dq.go. The inner three layers work on the
// transposed block, where lane r belongs to row r of eight residues.
func (m *dq) blocks(roots []uint64) []uint64 {
	n := len(roots)
	out := make([]uint64, n/64*dqBlockWords)
	for b := range n / 64 {
		o := out[b*dqBlockWords : (b+1)*dqBlockWords]
		put := func(at, quotient int, w uint64) { o[at], o[quotient] = w, m.quotient(w) }
		for k, layer := range []int{n / 64, n / 32, n / 16} {
			for i := range 1 << k {
				put(1<<k-1+i, 8+1<<k-1+i, roots[layer+b<<k+i])
			}
		}
		for k, layer := range []int{n / 8, n / 4, n / 2} {
			for i := range 1 << k {
				for r := range 8 {
					at := 8*(1<<k-1+i) + r
					put(16+at, 72+at, roots[layer+(8*b+r)<<k+i])
				}
			}
		}
	}
	return out
}

func (m *dq) NTT(z, x []uint64) {
	n := m.n
	if m.fold {
		m.foldRow(z, x, m.f, m.fs)
		x = z
	}
	blocks, size := 1, n
	if bits.TrailingZeros(uint(n/64))&1 == 1 {
		dqForward2(&z[0], &x[0], blocks, size/2, &m.w[0], &m.ws[0], m.Q)
		x, blocks, size = z, 2, n/2
	}
	for ; size > 64; blocks, size = blocks*4, size/4 {
		dqForward4(&z[0], &x[0], blocks, size/4, &m.w[0], &m.ws[0], m.Q)
		x = z
	}
	dqForwardLast(&z[0], &x[0], n/64, &m.last[0], m.Q)
}

func (m *dq) INTT(z, x []uint64) {
	n := m.n
	dqInverseFirst(&z[0], &x[0], n/64, &m.first[0], m.Q)
	size := 256
	for ; size <= n; size *= 4 {
		dqInverse4(&z[0], &z[0], n/size, size/4, &m.v[0], &m.vs[0], m.Q)
	}
	if size/2 == n {
		dqInverse2(&z[0], &z[0], 1, n/2, &m.v[0], &m.vs[0], m.Q)
	}
	if m.fold {
		m.foldRow(z, z, m.g, m.gs)
		z[0] *= 2 // below 8q
	}
	m.MulConst(z, z, m.ninv)
}

func (m *dq) Gaps() int { return 0 }

// foldRow is foldEnds for whole rows; entries below 4q become entries below 8q.
func (m *dq) foldRow(z, x []uint64, f, s uint64) {
	dqFold(&z[0], &x[0], len(z), f, s, m.Q)
	m.foldEnds(z, x, f, s, 8)
}

func (m *dq) Add(z, x, y []uint64) { addVec(&z[0], &x[0], &y[0], len(z), m.Q) }
func (m *dq) Sub(z, x, y []uint64) { subVec(&z[0], &x[0], &y[0], len(z), m.Q) }

func (m *dq) MulConst(z, x []uint64, c uint64) {
	dqMulConst(&z[0], &x[0], len(z), c, m.quotient(c), m.Q)
}

func (m *dq) MacConst(z, a, x []uint64, c uint64) {
	dqMacConst(&z[0], &a[0], &x[0], len(z), c, m.quotient(c), m.Q)
}

func (m *dq) SubMul(z, x, y []uint64, c uint64) {
	dqSubMul(&z[0], &x[0], &y[0], len(z), c, m.quotient(c), m.Q)
}

func (m *dq) Centre(z, x []uint64, s, c uint64) {
	add := m.Times((m.Q-s%m.Q)%m.Q, c)
	dqCentre(&z[0], &x[0], len(z), s>>1, add, c, m.quotient(c), m.Q)
}

func (m *dq) Mul(z, x, y []uint64) {
	dqMul(&z[0], &x[0], &y[0], len(z), uint64(m.shift), m.Q, m.inv)
}

func (m *dq) Mac(z, a, x, y []uint64) {
	dqMac(&z[0], &a[0], &x[0], &y[0], len(z), uint64(m.shift), m.Q, m.inv)
}

func (m *dq) Tensor(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	dqTensor(&d0[0], &d1[0], &d2[0], &a0[0], &a1[0], &b0[0], &b1[0], len(d0), m.one, m.quotient(m.one), m.Q, m.inv)
}

func (m *dq) Dot(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	// The sum over 2^64 must stay below 3q, and sums of high halves below 2^64.
	if hi, lo := bits.Mul64(uint64(len(x))<<m.shift, m.Q); len(x) > 24 || hi > 3 || hi == 3 && lo > 0 {
		m.portable.Dot(z0, z1, x, y0, y1)
		return
	}
	dqDot(&z0[0], &z1[0], &x[0], &y0[0], &y1[0], len(x), len(z0), uint64(m.shift), m.Q, m.inv)
}
