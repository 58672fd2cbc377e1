package kernels

import "math/bits"

// ifma is the form on 52-bit multiply-add (AVX-512 IFMA), for primes below MaxNarrow.
type ifma struct {
	dq // for what takes more
}

var ifmaPasses = passes{ifmaForward4, ifmaForward2, ifmaInverse4, ifmaInverse2, ifmaForwardLast, ifmaInverseFirst, ifmaFold}

func newIFMA(p Prime, t *Transform) *ifma {
	m := &ifma{dq{portable: portable{Prime: p}}}
	m.t = newVectorTransform(&ifmaPasses, t, m.quotient52, m.blocks)
	return m
}

// quotient52 returns floor(w*2^52/q).
func (p *Prime) quotient52(w uint64) uint64 {
	hi, lo := bits.Mul64(w, 1<<52)
	s, _ := bits.Div64(hi, lo, p.Q)
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

func (m *ifma) Form() Form         { return IFMA }
func (m *ifma) INTT(z, x []uint64) { m.t.intt(&m.Prime, z, x); m.MulConst(z, z, m.t.ninv) }

func (m *ifma) MulConst(z, x []uint64, c uint64) {
	ifmaMulConst(&z[0], &x[0], len(z), c, m.quotient52(c), m.Q)
}

func (m *ifma) MacConst(z, a, x []uint64, c uint64) {
	ifmaMacConst(&z[0], &a[0], &x[0], len(z), c, m.quotient52(c), m.Q)
}

func (m *ifma) SubMul(z, x, y []uint64, c uint64) {
	ifmaSubMul(&z[0], &x[0], &y[0], len(z), c, m.quotient52(c), m.Q)
}

func (m *ifma) Centre(z, x []uint64, s, c uint64) {
	if s > 1<<52 {
		m.dq.Centre(z, x, s, c)
		return
	}
	add := m.Times((m.Q-s%m.Q)%m.Q, c)
	ifmaCentre(&z[0], &x[0], len(z), s>>1, add, c, m.quotient52(c), m.Q)
}

func (m *ifma) Mul(z, x, y []uint64) { ifmaMul(&z[0], &x[0], &y[0], len(z), m.Q, m.inv) }

func (m *ifma) Mac(z, a, x, y []uint64) {
	ifmaMac(&z[0], &a[0], &x[0], &y[0], len(z), m.Q, m.inv)
}

func (m *ifma) Tensor(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	one := m.Montgomery(1)
	ifmaTensor(&d0[0], &d1[0], &d2[0], &a0[0], &a1[0], &b0[0], &b1[0], len(d0), one, m.quotient52(one), m.Q, m.inv)
}

func (m *ifma) Dot(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	if uint64(len(x))*m.Q > 3<<52 { // the sum over 2^52 must stay below 3q
		m.dq.Dot(z0, z1, x, y0, y1)
		return
	}
	ifmaDot(&z0[0], &z1[0], &x[0], &y0[0], &y1[0], len(x), len(z0), m.Q, m.inv)
}
