package lattigo

import (
	"math/big"
	"math/bits"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/tuneinsight/lattigo/v5/ring"
)

// modulus is one prime with the constants of its arithmetic. Residues are below
// q and q < 2^61. The Montgomery radix is 2^52 for primes below 2^50, 2^64 for
// others, whatever the machine, so that files and memory images agree.
type modulus struct {
	q     uint64
	inv   uint64    // q^-1 mod 2^64 (Montgomery)
	bar   [2]uint64 // floor(2^128/q), high word first (Barrett)
	half  uint64    // q>>1
	shift uint      // 64 minus the Montgomery radix' exponent
	r2    uint64    // the square of the radix mod q
	sub   *ring.SubRing

	// Vector arithmetic, for primes below 2^50 where the machine has it.
	vec    bool
	any    bool   // vector addition works for every prime
	neginv uint64 // -1/q mod 2^52
	bar52  uint64 // floor(2^52/q)
	tw     *twiddles

	wide *kernels.Wide // for what the above does not serve, where the machine has it
}

func newModulus(s *ring.SubRing, fold bool, form kernels.Form) (*modulus, error) {
	m := &modulus{q: s.Modulus, inv: s.MRedConstant, bar: [2]uint64{s.BRedConstant[0], s.BRedConstant[1]}, sub: s, half: s.Modulus >> 1}
	if m.q < 1<<50 {
		m.shift = 12
	}
	m.r2 = m.form(m.form(1))
	if m.any = form != kernels.Portable && s.N >= 64; !m.any {
		return m, nil
	}
	var err error
	if m.wide, err = kernels.NewWide(m.q, m.shift); err != nil {
		return nil, err
	}
	if m.q < 1<<50 && form == kernels.IFMA {
		m.vec = true
		m.neginv = -m.inv & (1<<52 - 1)
		m.bar52 = (1 << 52) / m.q
		m.tw = newTwiddles(m, s.N, fold)
	} else if err := m.wide.SetTransform(wideTransform(m, s.N, fold)); err != nil {
		return nil, err
	}
	s.RootsForward, s.RootsBackward = nil, nil // they have served their purpose
	return m, nil
}

// mred returns x*y over the radix mod q, for x < 4q and y < q.
func (m *modulus) mred(x, y uint64) uint64 { return m.mul64(x, y<<m.shift) }

// mul64 returns x*y/2^64 mod q, for x*y < q*2^64.
func (m *modulus) mul64(x, y uint64) uint64 {
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

// form returns the Montgomery form of x < q.
func (m *modulus) form(x uint64) uint64 {
	_, r := bits.Div64(x>>m.shift, x<<(64-m.shift), m.q)
	return r
}

// form64 returns x*2^64 mod q.
func (m *modulus) form64(x uint64) uint64 {
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
	if m.any {
		addVec(&z[0], &x[0], &y[0], len(z), m.q)
		return
	}
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
	if m.any {
		subVec(&z[0], &x[0], &y[0], len(z), m.q)
		return
	}
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
	if m.vec {
		c = m.mred(c, 1)
		mulConstVec(&z[0], &x[0], len(z), c, shoup(c, m.q), m.q)
		return
	}
	if m.wide != nil {
		m.wide.MulConst(z, x, m.mred(c, 1))
		return
	}
	x = x[:len(z)]
	for i := range z {
		z[i] = m.mred(x[i], c)
	}
}

// macScalarRow sets z = a + x*c, c in Montgomery form.
func (m *modulus) macScalarRow(z, a, x []uint64, c uint64) {
	if m.vec {
		c = m.mred(c, 1)
		macConstVec(&z[0], &a[0], &x[0], len(z), c, shoup(c, m.q), m.q)
		return
	}
	if m.wide != nil {
		m.wide.MacConst(z, a, x, m.mred(c, 1))
		return
	}
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
	if m.vec {
		mulVec(&z[0], &x[0], &y[0], len(z), m.q, m.neginv)
		return
	}
	if m.wide != nil {
		m.wide.Mul(z, x, y)
		return
	}
	x, y = x[:len(z)], y[:len(z)]
	for i := range z {
		z[i] = m.mred(x[i], y[i])
	}
}

// macRow sets z = a + x*y, y in Montgomery form.
func (m *modulus) macRow(z, a, x, y []uint64) {
	if m.vec {
		macVec(&z[0], &a[0], &x[0], &y[0], len(z), m.q, m.neginv)
		return
	}
	if m.wide != nil {
		m.wide.Mac(z, a, x, y)
		return
	}
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

// tensorRow sets d0 = a0*b0, d1 = a0*b1 + a1*b0, d2 = a1*b1.
func (m *modulus) tensorRow(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	if m.vec {
		tensorVec(&d0[0], &d1[0], &d2[0], &a0[0], &a1[0], &b0[0], &b1[0], len(d0), m.q, m.neginv, m.r2)
		return
	}
	if m.wide != nil {
		m.wide.Tensor(d0, d1, d2, a0, a1, b0, b1)
		return
	}
	n := len(d0)
	d1, d2, a0, a1, b0, b1 = d1[:n], d2[:n], a0[:n], a1[:n], b0[:n], b1[:n]
	r2 := m.r2
	for i := range d0 {
		x0, x1 := m.mred(a0[i], r2), m.mred(a1[i], r2) // to Montgomery form
		d0[i] = m.mred(x0, b0[i])
		d2[i] = m.mred(x1, b1[i])
		var s sum128
		s.mul(x0<<m.shift, b1[i])
		s.mac(x1<<m.shift, b0[i])
		d1[i] = s.reduced(m) // the high word is below 2*q*q/2^64*2^12 < q
	}
}

// squareRow sets d0 = a0^2, d1 = 2*a0*a1, d2 = a1^2.
func (m *modulus) squareRow(d0, d1, d2, a0, a1 []uint64) {
	if m.vec {
		tensorVec(&d0[0], &d1[0], &d2[0], &a0[0], &a1[0], &a0[0], &a1[0], len(d0), m.q, m.neginv, m.r2)
		return
	}
	if m.wide != nil {
		m.wide.Tensor(d0, d1, d2, a0, a1, a0, a1)
		return
	}
	n := len(d0)
	d1, d2, a0, a1 = d1[:n], d2[:n], a0[:n], a1[:n]
	r2 := m.r2
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
	if m.vec {
		c = m.mred(c, 1)
		subMulVec(&z[0], &x[0], &t[0], len(z), c, shoup(c, m.q), m.q)
		return
	}
	if m.wide != nil {
		m.wide.SubMul(z, x, t, m.mred(c, 1))
		return
	}
	q := m.q
	x, t = x[:len(z)], t[:len(z)]
	for i := range z {
		z[i] = m.mred(x[i]+q-t[i], c)
	}
}

// dotBlock is the number of coefficients whose 128-bit sums are held at a time.
const dotBlock = 256

// dotRows sets z0 = sum_d x_d*y0_d and z1 = sum_d x_d*y1_d, the y in Montgomery
// form, with one reduction per coefficient: the products are summed first. There
// may be at most 64 terms.
func (m *modulus) dotRows(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	if m.vec && uint64(len(x))*m.q <= 3<<52 {
		dotVec(&z0[0], &z1[0], &x[0], &y0[0], &y1[0], len(x), len(z0), m.q, m.neginv)
		return
	}
	if m.wide != nil && m.wide.DotTerms(len(x)) {
		m.wide.Dot(z0, z1, x, y0, y1)
		return
	}
	m.dotRow(z0, x, y0)
	m.dotRow(z1, x, y1)
}

func (m *modulus) dotRow(z []uint64, x, y [][]uint64) {
	var hi, lo [dotBlock]uint64
	shift := m.shift & 63
	many := bits.Len(uint(len(x)))+bits.Len64(m.q)+int(shift) > 64 // sums may reach q*2^64
	for base := 0; base < len(z); base += dotBlock {
		out := z[base:min(base+dotBlock, len(z))]
		for d := range x {
			xs, ys := x[d][base:base+len(out)], y[d][base:base+len(out)]
			if d == 0 {
				for i := range xs {
					hi[i&(dotBlock-1)], lo[i&(dotBlock-1)] = bits.Mul64(xs[i], ys[i]<<shift)
				}
				continue
			}
			for i := range xs {
				k := i & (dotBlock - 1)
				h, l := bits.Mul64(xs[i], ys[i]<<shift)
				s, c := bits.Add64(lo[k], l, 0)
				lo[k] = s
				hi[k] += h + c
			}
		}
		for i := range out {
			k := i & (dotBlock - 1)
			s := sum128{hi[k], lo[k]}
			if many {
				s.hi = m.reduce(s.hi)
			}
			out[i] = s.reduced(m)
		}
	}
}

// ntt transforms x, with entries below 4q, to z in place or out of place.
func (m *modulus) ntt(z, x []uint64) {
	if m.vec {
		m.tw.forward(m, z, x)
		return
	}
	if m.wide != nil {
		m.wide.NTT(z, x)
		return
	}
	m.sub.NTT(x, z)
}

// intt is the inverse of ntt.
func (m *modulus) intt(z, x []uint64) {
	if m.vec {
		m.tw.inverse(m, z, x)
		return
	}
	if m.wide != nil {
		m.wide.INTT(z, x)
		return
	}
	m.sub.INTT(x, z)
}

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

// reduced returns the reduction of the sum over 2^64, fully reduced, for a high
// word below q.
func (s *sum128) reduced(m *modulus) uint64 {
	h, _ := bits.Mul64(s.lo*m.inv, m.q)
	r := s.hi - h
	if s.hi < h {
		r += m.q
	}
	return r
}
