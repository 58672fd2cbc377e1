package kernels

import (
	"fmt"
	"math/bits"
)

// MaxWide bounds the primes that Wide serves: eight times a residue fits a word.
const MaxWide = 1 << 61

// Wide is the arithmetic of one odd prime below MaxWide on AVX-512 DQ. Rows are
// slices of as many residues, a multiple of 16; they need no alignment, and a result
// may be one of the operands but not overlap one otherwise. Residues are below q and
// results fully reduced unless a method says otherwise, so that results are those of
// any other arithmetic. Methods may run concurrently on different results.
type Wide struct {
	q, inv   uint64 // inv: 1/q mod 2^64
	shift    uint64 // 64 minus the exponent of the Montgomery radix
	one      uint64 // 2^64 mod q
	oneS     uint64
	n        int  // residues of a transformed row; 0 without transforms
	fold     bool // conjugate-invariant ring
	w, ws    []uint64
	last     []uint64
	v, vs    []uint64
	first    []uint64
	f, fs    uint64
	g, gs    uint64
	ninv, ns uint64
}

// NewWide returns the arithmetic of q with the Montgomery radix 2^(64-shift). The
// process must support DQ.
func NewWide(q uint64, shift uint) (*Wide, error) {
	if q >= MaxWide || q < 3 || q&1 == 0 {
		return nil, fmt.Errorf("prime %d (%d bits): the AVX-512 DQ kernels take odd primes below 2^61", q, bits.Len64(q))
	}
	if bits.Len64(q)+int(shift) > 62 {
		return nil, fmt.Errorf("prime %d: %d bits and a radix of %d do not fit the AVX-512 DQ kernels", q, bits.Len64(q), 64-shift)
	}
	m := &Wide{q: q, inv: q, shift: uint64(shift)}
	for range 5 { // Newton iteration doubles the correct low bits, three at first
		m.inv *= 2 - q*m.inv
	}
	_, m.one = bits.Div64(1, 0, q)
	m.oneS = m.quotient(m.one)
	return m, nil
}

// Transform is what a number-theoretic transform of N points is made of: plain roots
// such that the layer with h blocks has Forward[h..2h), Inverse likewise, 1/N (or
// 1/2N) and, in the conjugate-invariant ring, the constants of the fold before the
// transform and after its inverse.
type Transform struct {
	N                int
	Forward, Inverse []uint64
	NInv             uint64
	Fold             bool
	F, G             uint64
}

// blockWords is the number of words of factors of a block of 64 residues.
const blockWords = 128

// SetTransform prepares NTT and INTT. It must not run concurrently with them.
func (m *Wide) SetTransform(t *Transform) error {
	n := t.N
	if n < 64 || n&(n-1) != 0 || len(t.Forward) != n || len(t.Inverse) != n {
		return fmt.Errorf("a transform of %d points with %d and %d roots: the AVX-512 DQ kernels take powers of two from 64 on", n, len(t.Forward), len(t.Inverse))
	}
	m.n, m.fold, m.f, m.g, m.ninv = n, t.Fold, t.F, t.G, t.NInv
	m.fs, m.gs, m.ns = m.quotient(m.f), m.quotient(m.g), m.quotient(m.ninv)
	m.w, m.ws = m.outer(t.Forward)
	m.v, m.vs = m.outer(t.Inverse)
	m.last, m.first = m.blocks(t.Forward), m.blocks(t.Inverse)
	return nil
}

// Bytes returns the size of the tables.
func (m *Wide) Bytes() int64 {
	return 8 * int64(len(m.w)+len(m.ws)+len(m.v)+len(m.vs)+len(m.last)+len(m.first))
}

// quotient returns floor(w*2^64/q).
func (m *Wide) quotient(w uint64) uint64 {
	s, _ := bits.Div64(w, 0, m.q)
	return s
}

// outer copies the roots of the layers down to blocks of 128 residues, and adds their
// quotients.
func (m *Wide) outer(roots []uint64) (w, s []uint64) {
	w = append([]uint64{}, roots[:max(2, len(roots)/64)]...)
	for _, x := range w {
		s = append(s, m.quotient(x%m.q))
	}
	return w, s
}

// blocks gathers the roots of the six innermost layers, block by block, as the
// assembly reads them: see block in gen/dq.go. The inner three layers work on the
// transposed block, where lane r belongs to row r of eight residues.
func (m *Wide) blocks(roots []uint64) []uint64 {
	n := len(roots)
	out := make([]uint64, n/64*blockWords)
	for b := range n / 64 {
		o := out[b*blockWords : (b+1)*blockWords]
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

// NTT transforms x, with entries below 4q, to z.
func (m *Wide) NTT(z, x []uint64) {
	n := m.n
	z, x = z[:n], x[:n]
	if m.fold {
		m.foldRow(z, x, m.f, m.fs)
		x = z
	}
	blocks, size := 1, n
	if bits.TrailingZeros(uint(n/64))&1 == 1 {
		dqForward2(&z[0], &x[0], blocks, size/2, &m.w[0], &m.ws[0], m.q)
		x, blocks, size = z, 2, n/2
	}
	for ; size > 64; blocks, size = blocks*4, size/4 {
		dqForward4(&z[0], &x[0], blocks, size/4, &m.w[0], &m.ws[0], m.q)
		x = z
	}
	dqForwardLast(&z[0], &x[0], n/64, &m.last[0], m.q)
}

// INTT is the inverse of NTT.
func (m *Wide) INTT(z, x []uint64) {
	n := m.n
	z, x = z[:n], x[:n]
	dqInverseFirst(&z[0], &x[0], n/64, &m.first[0], m.q)
	size := 256
	for ; size <= n; size *= 4 {
		dqInverse4(&z[0], &z[0], n/size, size/4, &m.v[0], &m.vs[0], m.q)
	}
	if size/2 == n {
		dqInverse2(&z[0], &z[0], 1, n/2, &m.v[0], &m.vs[0], m.q)
	}
	if m.fold {
		first := z[0]
		m.foldRow(z, z, m.g, m.gs)
		z[0] = 2 * first // below 8q
	}
	dqMulConst(&z[0], &z[0], n, m.ninv, m.ns, m.q)
}

// foldRow computes x[j] - f*x[n-j] for all j; entry 0 is copied. Entries below 4q
// become entries below 8q.
func (m *Wide) foldRow(z, x []uint64, f, s uint64) {
	n := len(z)
	dqFold(&z[0], &x[0], n, f, s, m.q)
	lazy := func(y uint64) uint64 { // y*f in [0, 2q)
		h, _ := bits.Mul64(y, s)
		return y*f - h*m.q
	}
	z[0] = x[0]
	for j := 1; j < 8; j++ {
		a, b := x[j], x[n-j]
		z[j], z[n-j] = a+4*m.q-lazy(b), b+4*m.q-lazy(a)
	}
	z[n/2] = x[n/2] + 4*m.q - lazy(x[n/2])
}

// MulConst sets z = x*c for a plain c < q and any words x.
func (m *Wide) MulConst(z, x []uint64, c uint64) {
	n := m.length(z)
	dqMulConst(&z[0], &x[:n][0], n, c, m.quotient(c), m.q)
}

// MacConst sets z = a + x*c for a plain c < q and any words x.
func (m *Wide) MacConst(z, a, x []uint64, c uint64) {
	n := m.length(z)
	dqMacConst(&z[0], &a[:n][0], &x[:n][0], n, c, m.quotient(c), m.q)
}

// SubMul sets z = (x-y)*c for a plain c < q and x and y below 4q.
func (m *Wide) SubMul(z, x, y []uint64, c uint64) {
	n := m.length(z)
	dqSubMul(&z[0], &x[:n][0], &y[:n][0], n, c, m.quotient(c), m.q)
}

// Centre sets z, below 3q, to the product of c, plain, with x read as a number in
// [-s/2, s/2], s being any modulus.
func (m *Wide) Centre(z, x []uint64, s, c uint64) {
	n := m.length(z)
	hi, lo := bits.Mul64((m.q-s%m.q)%m.q, c)
	_, add := bits.Div64(hi, lo, m.q)
	dqCentre(&z[0], &x[:n][0], n, s>>1, add, c, m.quotient(c), m.q)
}

// Mul sets z = x*y, y in Montgomery form.
func (m *Wide) Mul(z, x, y []uint64) {
	n := m.length(z)
	dqMul(&z[0], &x[:n][0], &y[:n][0], n, m.shift, m.q, m.inv)
}

// Mac sets z = a + x*y, y in Montgomery form.
func (m *Wide) Mac(z, a, x, y []uint64) {
	n := m.length(z)
	dqMac(&z[0], &a[:n][0], &x[:n][0], &y[:n][0], n, m.shift, m.q, m.inv)
}

// Tensor sets d0 = a0*b0, d1 = a0*b1 + a1*b0, d2 = a1*b1.
func (m *Wide) Tensor(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	n := m.length(d0)
	dqTensor(&d0[0], &d1[:n][0], &d2[:n][0], &a0[:n][0], &a1[:n][0], &b0[:n][0], &b1[:n][0], n, m.one, m.oneS, m.q, m.inv)
}

// DotTerms reports whether Dot takes so many terms.
func (m *Wide) DotTerms(terms int) bool {
	hi, lo := bits.Mul64(uint64(terms)<<m.shift, m.q)
	return terms > 0 && terms <= 24 && (hi < 3 || hi == 3 && lo == 0)
}

// Dot sets z0 = sum x_k*y0_k and z1 = sum x_k*y1_k, the y in Montgomery form.
func (m *Wide) Dot(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	n := m.length(z0)
	if !m.DotTerms(len(x)) {
		panic(fmt.Sprintf("BUG: a sum of %d products modulo %d", len(x), m.q))
	}
	for k := range x {
		_, _, _ = x[k][:n], y0[k][:n], y1[k][:n]
	}
	dqDot(&z0[0], &z1[:n][0], &x[0], &y0[0], &y1[0], len(x), n, m.shift, m.q, m.inv)
}

// Convert sets z, below 4q, to (sum x_k*w_k + v*neg)/2^64, for at most eight rows of
// words below 2^61.
func (m *Wide) Convert(z []uint64, x [][]uint64, w []uint64, v []uint8, neg uint64) {
	n := m.length(z)
	if len(x) == 0 || len(x) > 8 {
		panic(fmt.Sprintf("BUG: a conversion from %d primes", len(x)))
	}
	for k := range x {
		_ = x[k][:n]
	}
	dqConvert(&z[0], &x[0], &w[:len(x)][0], len(x), &v[:n][0], neg, n, m.q, m.inv)
}

// Prepare sets x = x*c, c plain, and adds frac times that to sum.
func (m *Wide) Prepare(x []uint64, sum []float64, c uint64, frac float64) {
	n := m.length(x)
	dqPrepare(&x[0], &sum[:n][0], n, c, m.quotient(c), m.q, frac)
}

// length returns the number of residues of a row.
func (m *Wide) length(z []uint64) int {
	if len(z) == 0 || len(z)%16 != 0 {
		panic(fmt.Sprintf("BUG: a row of %d residues", len(z)))
	}
	return len(z)
}
