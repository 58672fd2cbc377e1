package kernels

import "math/bits"

// ifma is the form on 52-bit multiply-add (AVX-512 IFMA), for primes below MaxNarrow.
type ifma struct {
	dq     // what takes more
	neginv uint64
	inv52  uint64
	short  [][]uint64 // last of the rings with 2, 4, 8 times fewer points, whose roots are the first of this one
}

func newIFMA(p Prime, t *Transform) *ifma {
	m := &ifma{dq: newDQRows(p), neginv: -p.inv & (1<<52 - 1), inv52: p.inv & (1<<52 - 1)}
	m.n, m.fold, m.f, m.g, m.ninv = t.N, t.Fold, t.F, t.G, t.NInv
	m.fs, m.gs = m.quotient52(m.f), m.quotient52(m.g)
	m.w, m.ws = outer(t.Forward, m.quotient52)
	m.v, m.vs = outer(t.Inverse, m.quotient52)
	m.last, m.first = m.blocks(t.Forward), m.blocks(t.Inverse)
	for k := m.n / 2; k >= max(minVector, m.n>>maxGaps); k /= 2 {
		m.short = append(m.short, m.blocks(t.Forward[:k]))
	}
	return m
}

// quotient52 returns floor(w*2^52/q).
func (m *Prime) quotient52(w uint64) uint64 {
	hi, lo := bits.Mul64(w, 1<<52)
	s, _ := bits.Div64(hi, lo, m.Q)
	return s
}

// ifmaBlockWords is the number of constants of a block of 64 residues.
const ifmaBlockWords = 72

// blocks gathers the constants of the six innermost layers block by block. The first
// three layers have word 0 for pairs at distance 32, 1-2 at 16, 3-6 at 8, and their
// quotients eight words on. The others work on the transposed block (lane r belongs
// to row r of eight residues) and, having a constant for every pair, do without
// quotients, in Montgomery form: words 16-23 at distance 4, 24-39 at 2 (first pair of
// each row, then second), 40-71 at 1.
func (m *ifma) blocks(roots []uint64) []uint64 {
	n := len(roots)
	out := make([]uint64, n/64*ifmaBlockWords)
	for b := range n / 64 {
		o := out[b*ifmaBlockWords : (b+1)*ifmaBlockWords]
		for k, layer := range []int{n / 64, n / 32, n / 16} {
			for i := range 1 << k {
				w := roots[layer+b<<k+i]
				o[1<<k-1+i], o[8+1<<k-1+i] = w, m.quotient52(w)
			}
		}
		for k, layer := range []int{n / 8, n / 4, n / 2} {
			for i := range 1 << k {
				for r := range 8 {
					o[16+8*(1<<k-1+i)+r] = m.Montgomery(roots[layer+(8*b+r)<<k+i])
				}
			}
		}
	}
	return out
}

func (m *ifma) Form() Form { return IFMA }

func (m *ifma) Bytes() int64 {
	b := m.dq.Bytes()
	for _, s := range m.short {
		b += 8 * int64(len(s))
	}
	return b
}

func (m *ifma) Gaps() int { return len(m.short) }

func (m *ifma) NTT(z, x []uint64) {
	n, last := len(z), m.last
	if n < m.n {
		last = m.short[bits.TrailingZeros(uint(m.n/n))-1]
	}
	if m.fold {
		m.foldRow(z, x, m.f, m.fs)
		x = z
	}
	blocks, size := 1, n
	if bits.TrailingZeros(uint(n/64))&1 == 1 {
		nttPass2(&z[0], &x[0], blocks, size/2, &m.w[0], &m.ws[0], m.Q)
		x, blocks, size = z, 2, n/2
	}
	for ; size > 64; blocks, size = blocks*4, size/4 {
		nttPass4(&z[0], &x[0], blocks, size/4, &m.w[0], &m.ws[0], m.Q)
		x = z
	}
	nttLast(&z[0], &x[0], n/64, &last[0], m.Q, m.inv52)
}

func (m *ifma) INTT(z, x []uint64) {
	n := m.n
	inttFirst(&z[0], &x[0], n/64, &m.first[0], m.Q, m.inv52)
	size := 256
	for ; size <= n; size *= 4 {
		inttPass4(&z[0], n/size, size/4, &m.v[0], &m.vs[0], m.Q)
	}
	if size/2 == n {
		inttPass2(&z[0], 1, n/2, &m.v[0], &m.vs[0], m.Q)
	}
	if m.fold {
		m.foldRow(z, z, m.g, m.gs)
		z[0] *= 2 // below 4q
	}
	m.MulConst(z, z, m.ninv)
}

// foldRow is foldEnds for whole rows; s is a quotient of 52 bits.
func (m *ifma) foldRow(z, x []uint64, f, s uint64) {
	foldVec(&z[0], &x[0], len(z), f, s, m.Q)
	m.foldEnds(z, x, f, m.quotient(f), 8)
}

func (m *ifma) MulConst(z, x []uint64, c uint64) {
	mulConstVec(&z[0], &x[0], len(z), c, m.quotient52(c), m.Q)
}

func (m *ifma) MacConst(z, a, x []uint64, c uint64) {
	macConstVec(&z[0], &a[0], &x[0], len(z), c, m.quotient52(c), m.Q)
}

func (m *ifma) SubMul(z, x, y []uint64, c uint64) {
	subMulVec(&z[0], &x[0], &y[0], len(z), c, m.quotient52(c), m.Q)
}

func (m *ifma) Centre(z, x []uint64, s, c uint64) {
	if s > 1<<52 {
		m.dq.Centre(z, x, s, c)
		return
	}
	add := m.Times((m.Q-s%m.Q)%m.Q, c)
	convert1Vec(&z[0], &x[0], len(z), s>>1, add, c, m.quotient52(c), m.Q)
}

func (m *ifma) Mul(z, x, y []uint64) { mulVec(&z[0], &x[0], &y[0], len(z), m.Q, m.neginv) }

func (m *ifma) Mac(z, a, x, y []uint64) {
	macVec(&z[0], &a[0], &x[0], &y[0], len(z), m.Q, m.neginv)
}

func (m *ifma) Tensor(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	r2 := m.Montgomery(m.Montgomery(1))
	tensorVec(&d0[0], &d1[0], &d2[0], &a0[0], &a1[0], &b0[0], &b1[0], len(d0), m.Q, m.neginv, r2)
}

func (m *ifma) Dot(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	if uint64(len(x))*m.Q > 3<<52 { // the sum over 2^52 must stay below 3q
		m.dq.Dot(z0, z1, x, y0, y1)
		return
	}
	dotVec(&z0[0], &z1[0], &x[0], &y0[0], &y1[0], len(x), len(z0), m.Q, m.neginv)
}
