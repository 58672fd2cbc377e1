package kernels

import "math/bits"

// dq is the form on AVX-512 DQ: 64-bit products of 32-bit halves, for all primes.
type dq struct {
	portable
	t vectorTransform
}

var dqPasses = passes{dqForward4, dqForward2, dqInverse4, dqInverse2, dqForwardLast, dqInverseFirst, dqFold}

func newDQ(p Prime, t *Transform) *dq {
	m := &dq{portable: portable{Prime: p}}
	m.t = newVectorTransform(&dqPasses, t, m.quotient, m.blocks)
	return m
}

// dqBlockWords is the number of words of factors of a block of 64 residues.
const dqBlockWords = 128

// blocks gathers the roots of the six innermost layers, block by block, as the
// assembly reads them: see lane in gen/dq.go. The inner three layers work on the
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

func (m *dq) Form() Form         { return DQ }
func (m *dq) Bytes() int64       { return m.t.bytes() }
func (m *dq) NTT(z, x []uint64)  { m.t.ntt(&m.Prime, z, x) }
func (m *dq) INTT(z, x []uint64) { m.t.intt(&m.Prime, z, x); m.MulConst(z, z, m.t.ninv) }

func (m *dq) Add(z, x, y []uint64) { dqAdd(&z[0], &x[0], &y[0], len(z), m.Q) }
func (m *dq) Sub(z, x, y []uint64) { dqSub(&z[0], &x[0], &y[0], len(z), m.Q) }

// repeatOrder has, for g, which of 8/2^g words goes to which lane.
var repeatOrder = [3][8]uint64{{0, 1, 2, 3, 4, 5, 6, 7}, {0, 0, 1, 1, 2, 2, 3, 3}, {0, 0, 0, 0, 1, 1, 1, 1}}

func (m *dq) Repeat(z, x []uint64) {
	if g := bits.Len(uint(len(z)/len(x))) - 1; g < len(repeatOrder) {
		dqRepeat(&z[0], &x[0], len(z), 8>>g, 1<<(8>>g)-1, &repeatOrder[g])
	} else {
		dqRepeatWord(&z[0], &x[0], len(z), 1<<g/8)
	}
}

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
	one := m.form64(1)
	dqTensor(&d0[0], &d1[0], &d2[0], &a0[0], &a1[0], &b0[0], &b1[0], len(d0), one, m.quotient(one), m.Q, m.inv)
}

func (m *dq) Dot(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	// The sum over 2^64 must stay below 3q, and sums of high halves below 2^64.
	if hi, lo := bits.Mul64(uint64(len(x))<<m.shift, m.Q); len(x) > 24 || hi > 3 || hi == 3 && lo > 0 {
		m.portable.Dot(z0, z1, x, y0, y1)
		return
	}
	dqDot(&z0[0], &z1[0], &x[0], &y0[0], &y1[0], len(x), len(z0), uint64(m.shift), m.Q, m.inv)
}
