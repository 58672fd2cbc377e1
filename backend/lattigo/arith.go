package lattigo

import (
	"math/big"
	"math/bits"

	"github.com/tuneinsight/lattigo/v5/ring"
)

// modulus is one prime with the constants of its arithmetic. Residues are below
// q and q < 2^61.
type modulus struct {
	q    uint64
	inv  uint64    // q^-1 mod 2^64 (Montgomery)
	bar  [2]uint64 // floor(2^128/q), high word first (Barrett)
	sub  *ring.SubRing
	half uint64 // q>>1
}

func newModulus(s *ring.SubRing) *modulus {
	return &modulus{q: s.Modulus, inv: s.MRedConstant, bar: [2]uint64{s.BRedConstant[0], s.BRedConstant[1]}, sub: s, half: s.Modulus >> 1}
}

// mred returns x*y/2^64 mod q, for x*y < q*2^64.
func (m *modulus) mred(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	h, _ := bits.Mul64(lo*m.inv, m.q)
	r := hi - h
	if hi < h {
		r += m.q
	}
	return r
}

// reduce returns x mod q for any x.
func (m *modulus) reduce(x uint64) uint64 {
	h, _ := bits.Mul64(x, m.bar[0])
	r := x - h*m.q
	if r >= m.q {
		r -= m.q
	}
	return r
}

// form returns x*2^64 mod q, the Montgomery form of x < q.
func (m *modulus) form(x uint64) uint64 {
	_, r := bits.Div64(x, 0, m.q)
	return r
}

// mul returns x*y mod q for x, y < q. For set-up, not for inner loops.
func (m *modulus) mul(x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	_, r := bits.Div64(hi, lo, m.q)
	return r
}

// pow returns x^e mod q.
func (m *modulus) pow(x, e uint64) uint64 {
	r := uint64(1)
	for x %= m.q; e > 0; e >>= 1 {
		if e&1 == 1 {
			r = m.mul(r, x)
		}
		x = m.mul(x, x)
	}
	return r
}

// invert returns x^-1 mod q.
func (m *modulus) invert(x uint64) uint64 { return m.pow(x, m.q-2) }

// bigMod returns x mod q in [0, q).
func (m *modulus) bigMod(x *big.Int) uint64 {
	return new(big.Int).Mod(x, new(big.Int).SetUint64(m.q)).Uint64()
}

// The row kernels below work on limbs: slices of N residues, N a multiple of 8.
// Every result is fully reduced, so results do not depend on which kernel ran.

// addRow sets z = x + y.
func (m *modulus) addRow(z, x, y []uint64) {
	q := m.q
	x, y = x[:len(z)], y[:len(z)]
	for i := range z {
		r := x[i] + y[i]
		if r >= q {
			r -= q
		}
		z[i] = r
	}
}

// subRow sets z = x - y.
func (m *modulus) subRow(z, x, y []uint64) {
	q := m.q
	x, y = x[:len(z)], y[:len(z)]
	for i := range z {
		r := x[i] - y[i]
		if x[i] < y[i] {
			r += q
		}
		z[i] = r
	}
}

// addScalarRow sets z = x + c.
func (m *modulus) addScalarRow(z, x []uint64, c uint64) {
	q := m.q
	x = x[:len(z)]
	for i := range z {
		r := x[i] + c
		if r >= q {
			r -= q
		}
		z[i] = r
	}
}

// mulScalarRow sets z = x*c, c in Montgomery form.
func (m *modulus) mulScalarRow(z, x []uint64, c uint64) {
	x = x[:len(z)]
	for i := range z {
		z[i] = m.mred(x[i], c)
	}
}

// macScalarRow sets z = a + x*c, c in Montgomery form.
func (m *modulus) macScalarRow(z, a, x []uint64, c uint64) {
	q := m.q
	a, x = a[:len(z)], x[:len(z)]
	for i := range z {
		r := a[i] + m.mred(x[i], c)
		if r >= q {
			r -= q
		}
		z[i] = r
	}
}

// mulRow sets z = x*y, y in Montgomery form.
func (m *modulus) mulRow(z, x, y []uint64) {
	x, y = x[:len(z)], y[:len(z)]
	for i := range z {
		z[i] = m.mred(x[i], y[i])
	}
}

// macRow sets z = a + x*y, y in Montgomery form.
func (m *modulus) macRow(z, a, x, y []uint64) {
	q := m.q
	a, x, y = a[:len(z)], x[:len(z)], y[:len(z)]
	for i := range z {
		r := a[i] + m.mred(x[i], y[i])
		if r >= q {
			r -= q
		}
		z[i] = r
	}
}

// mulPlainRow sets z = x*y, neither in Montgomery form.
func (m *modulus) mulPlainRow(z, x, y []uint64) {
	x, y = x[:len(z)], y[:len(z)]
	r2 := m.form(m.form(1))
	for i := range z {
		z[i] = m.mred(m.mred(x[i], y[i]), r2)
	}
}

// tensorRow sets d0 = a0*b0, d1 = a0*b1 + a1*b0, d2 = a1*b1.
func (m *modulus) tensorRow(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	n := len(d0)
	d1, d2, a0, a1, b0, b1 = d1[:n], d2[:n], a0[:n], a1[:n], b0[:n], b1[:n]
	r2 := m.form(m.form(1))
	for i := range d0 {
		x0, x1 := m.mred(a0[i], r2), m.mred(a1[i], r2) // to Montgomery form
		d0[i] = m.mred(x0, b0[i])
		d2[i] = m.mred(x1, b1[i])
		hi, lo := bits.Mul64(x0, b1[i])
		h2, l2 := bits.Mul64(x1, b0[i])
		var c uint64
		lo, c = bits.Add64(lo, l2, 0)
		hi += h2 + c // below 2*q*q/2^64 < q
		h, _ := bits.Mul64(lo*m.inv, m.q)
		r := hi - h
		if hi < h {
			r += m.q
		}
		d1[i] = r
	}
}

// squareRow sets d0 = a0^2, d1 = 2*a0*a1, d2 = a1^2.
func (m *modulus) squareRow(d0, d1, d2, a0, a1 []uint64) {
	n := len(d0)
	d1, d2, a0, a1 = d1[:n], d2[:n], a0[:n], a1[:n]
	r2 := m.form(m.form(1))
	for i := range d0 {
		x0, x1 := m.mred(a0[i], r2), m.mred(a1[i], r2)
		d0[i] = m.mred(x0, a0[i])
		d2[i] = m.mred(x1, a1[i])
		r := 2 * m.mred(x0, a1[i])
		if r >= m.q {
			r -= m.q
		}
		d1[i] = r
	}
}

// subMulRow sets z = (x - t)*c, c in Montgomery form.
func (m *modulus) subMulRow(z, x, t []uint64, c uint64) {
	q := m.q
	x, t = x[:len(z)], t[:len(z)]
	for i := range z {
		z[i] = m.mred(x[i]+q-t[i], c)
	}
}

// dotBlock is the number of coefficients whose 128-bit sums are held at a time.
const dotBlock = 256

// dotRows sets z = sum_d x_d*y_d, the y in Montgomery form, with one reduction
// per coefficient: the products are summed in 128 bits. There may be at most 64
// terms, since q < 2^61.
func (m *modulus) dotRows(z []uint64, x, y [][]uint64) {
	var hi, lo [dotBlock]uint64
	many := bits.Len(uint(len(x)))+bits.Len64(m.q) > 64 // sums may reach q*2^64
	for base := 0; base < len(z); base += dotBlock {
		out := z[base:min(base+dotBlock, len(z))]
		for d := range x {
			xs, ys := x[d][base:base+len(out)], y[d][base:base+len(out)]
			if d == 0 {
				for i := range xs {
					hi[i&(dotBlock-1)], lo[i&(dotBlock-1)] = bits.Mul64(xs[i], ys[i])
				}
				continue
			}
			for i := range xs {
				k := i & (dotBlock - 1)
				h, l := bits.Mul64(xs[i], ys[i])
				s, c := bits.Add64(lo[k], l, 0)
				lo[k] = s
				hi[k] += h + c
			}
		}
		for i := range out {
			k := i & (dotBlock - 1)
			t := hi[k]
			if many {
				t = m.reduce(t)
			}
			h, _ := bits.Mul64(lo[k]*m.inv, m.q)
			r := t - h
			if t < h {
				r += m.q
			}
			out[i] = r
		}
	}
}

// ntt transforms x, with entries below 4q, to z in place or out of place.
func (m *modulus) ntt(z, x []uint64) { m.sub.NTT(x, z) }

// intt is the inverse of ntt.
func (m *modulus) intt(z, x []uint64) { m.sub.INTT(x, z) }

func mulHi(x, y uint64) uint64 {
	h, _ := bits.Mul64(x, y)
	return h
}

// sum128 is a sum of products in 128 bits.
type sum128 struct{ hi, lo uint64 }

func (s *sum128) mul(x, y uint64) { s.hi, s.lo = bits.Mul64(x, y) }

func (s *sum128) mac(x, y uint64) {
	h, l := bits.Mul64(x, y)
	var c uint64
	s.lo, c = bits.Add64(s.lo, l, 0)
	s.hi += h + c
}

// lazy returns the Montgomery reduction of the sum, in [0, 3q), for a sum of at
// most nine products x*y with x < 2^61 and y < q: the high word stays below
// 9*q/8 + 1.
func (s *sum128) lazy(m *modulus) uint64 {
	h, _ := bits.Mul64(s.lo*m.inv, m.q)
	return s.hi - h + m.q
}
