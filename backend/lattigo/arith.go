package lattigo

import (
	"math/big"
	"math/bits"
	"unsafe"

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
	return mont(x, y, m.q, m.inv)
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

// eight returns residues i..i+7 of a row, whose length is a multiple of eight: with one
// comparison instead of eight, or of the arithmetic of a slice.
func eight(x []uint64, i int) *[8]uint64 { return (*[8]uint64)(unsafe.Pointer(&x[i])) }

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
	for i := 0; i < len(z); i += 8 {
		z, x, y := eight(z, i), eight(x, i), eight(y, i)
		z[0] = below(x[0]+y[0], q)
		z[1] = below(x[1]+y[1], q)
		z[2] = below(x[2]+y[2], q)
		z[3] = below(x[3]+y[3], q)
		z[4] = below(x[4]+y[4], q)
		z[5] = below(x[5]+y[5], q)
		z[6] = below(x[6]+y[6], q)
		z[7] = below(x[7]+y[7], q)
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
	for i := 0; i < len(z); i += 8 {
		z, x, y := eight(z, i), eight(x, i), eight(y, i)
		z[0] = below(x[0]+q-y[0], q)
		z[1] = below(x[1]+q-y[1], q)
		z[2] = below(x[2]+q-y[2], q)
		z[3] = below(x[3]+q-y[3], q)
		z[4] = below(x[4]+q-y[4], q)
		z[5] = below(x[5]+q-y[5], q)
		z[6] = below(x[6]+q-y[6], q)
		z[7] = below(x[7]+q-y[7], q)
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
	q, inv := m.q, m.inv
	c <<= m.shift
	x = x[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, x := eight(z, i), eight(x, i)
		z[0] = mont(x[0], c, q, inv)
		z[1] = mont(x[1], c, q, inv)
		z[2] = mont(x[2], c, q, inv)
		z[3] = mont(x[3], c, q, inv)
		z[4] = mont(x[4], c, q, inv)
		z[5] = mont(x[5], c, q, inv)
		z[6] = mont(x[6], c, q, inv)
		z[7] = mont(x[7], c, q, inv)
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
	q, inv := m.q, m.inv
	c <<= m.shift
	a, x = a[:len(z)], x[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, a, x := eight(z, i), eight(a, i), eight(x, i)
		z[0] = below(a[0]+mont(x[0], c, q, inv), q)
		z[1] = below(a[1]+mont(x[1], c, q, inv), q)
		z[2] = below(a[2]+mont(x[2], c, q, inv), q)
		z[3] = below(a[3]+mont(x[3], c, q, inv), q)
		z[4] = below(a[4]+mont(x[4], c, q, inv), q)
		z[5] = below(a[5]+mont(x[5], c, q, inv), q)
		z[6] = below(a[6]+mont(x[6], c, q, inv), q)
		z[7] = below(a[7]+mont(x[7], c, q, inv), q)
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
	q, inv, shift := m.q, m.inv, m.shift&63
	x, y = x[:len(z)], y[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, x, y := eight(z, i), eight(x, i), eight(y, i)
		z[0] = mont(x[0], y[0]<<shift, q, inv)
		z[1] = mont(x[1], y[1]<<shift, q, inv)
		z[2] = mont(x[2], y[2]<<shift, q, inv)
		z[3] = mont(x[3], y[3]<<shift, q, inv)
		z[4] = mont(x[4], y[4]<<shift, q, inv)
		z[5] = mont(x[5], y[5]<<shift, q, inv)
		z[6] = mont(x[6], y[6]<<shift, q, inv)
		z[7] = mont(x[7], y[7]<<shift, q, inv)
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
	q, inv, shift := m.q, m.inv, m.shift&63
	a, x, y = a[:len(z)], x[:len(z)], y[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, a, x, y := eight(z, i), eight(a, i), eight(x, i), eight(y, i)
		z[0] = below(a[0]+mont(x[0], y[0]<<shift, q, inv), q)
		z[1] = below(a[1]+mont(x[1], y[1]<<shift, q, inv), q)
		z[2] = below(a[2]+mont(x[2], y[2]<<shift, q, inv), q)
		z[3] = below(a[3]+mont(x[3], y[3]<<shift, q, inv), q)
		z[4] = below(a[4]+mont(x[4], y[4]<<shift, q, inv), q)
		z[5] = below(a[5]+mont(x[5], y[5]<<shift, q, inv), q)
		z[6] = below(a[6]+mont(x[6], y[6]<<shift, q, inv), q)
		z[7] = below(a[7]+mont(x[7], y[7]<<shift, q, inv), q)
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
	q, inv, shift := m.q, m.inv, m.shift&63
	r2 := m.r2 << shift
	for i := range d0 {
		x0, x1 := mont(a0[i], r2, q, inv)<<shift, mont(a1[i], r2, q, inv)<<shift // to Montgomery form
		y0, y1 := b0[i], b1[i]
		d0[i] = mont(x0, y0, q, inv)
		d2[i] = mont(x1, y1, q, inv)
		var s sum128
		s.mul(x0, y1)
		s.mac(x1, y0)
		d1[i] = reduced(s.hi, s.lo, q, inv) // the high word is below 2*q*q/2^64*2^12 < q
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
	q, inv, shift := m.q, m.inv, m.shift&63
	r2 := m.r2 << shift
	for i := range d0 {
		y0, y1 := a0[i], a1[i]
		x0, x1 := mont(y0, r2, q, inv)<<shift, mont(y1, r2, q, inv)<<shift
		d0[i] = mont(x0, y0, q, inv)
		d2[i] = mont(x1, y1, q, inv)
		d1[i] = below(2*mont(x0, y1, q, inv), q)
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
	q, inv := m.q, m.inv
	c <<= m.shift
	x, t = x[:len(z)], t[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, x, t := eight(z, i), eight(x, i), eight(t, i)
		z[0] = mont(x[0]+q-t[0], c, q, inv)
		z[1] = mont(x[1]+q-t[1], c, q, inv)
		z[2] = mont(x[2]+q-t[2], c, q, inv)
		z[3] = mont(x[3]+q-t[3], c, q, inv)
		z[4] = mont(x[4]+q-t[4], c, q, inv)
		z[5] = mont(x[5]+q-t[5], c, q, inv)
		z[6] = mont(x[6]+q-t[6], c, q, inv)
		z[7] = mont(x[7]+q-t[7], c, q, inv)
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
	var s sums
	q, inv, shift := m.q, m.inv, m.shift&63
	many := bits.Len(uint(len(x)))+bits.Len64(m.q)+int(shift) > 64 // sums may reach q*2^64
	for base := 0; base < len(z); base += dotBlock {
		out := z[base:min(base+dotBlock, len(z))]
		row := func(x []uint64) []uint64 { return x[base : base+len(out)] }
		d := 2 - len(x)&1
		if d == 1 {
			s.set(row(x[0]), row(y[0]), shift)
		} else {
			s.set2(row(x[0]), row(y[0]), row(x[1]), row(y[1]), shift)
		}
		for ; d < len(x); d += 2 {
			s.add2(row(x[d]), row(y[d]), row(x[d+1]), row(y[d+1]), shift)
		}
		if many {
			for i := range out {
				s.hi[i&(dotBlock-1)] = m.reduce(s.hi[i&(dotBlock-1)])
			}
		}
		for i := range out {
			out[i] = reduced(s.hi[i&(dotBlock-1)], s.lo[i&(dotBlock-1)], q, inv)
		}
	}
}

// sums is a block of sums of products in 128 bits.
type sums struct{ hi, lo [dotBlock]uint64 }

// set makes the sums x*y<<shift.
func (s *sums) set(x, y []uint64, shift uint) {
	shift &= 63
	y = y[:len(x)]
	for i := range x {
		k := i & (dotBlock - 1)
		s.hi[k], s.lo[k] = bits.Mul64(x[i], y[i]<<shift)
	}
}

// set2 makes the sums of two products.
func (s *sums) set2(x0, y0, x1, y1 []uint64, shift uint) {
	shift &= 63
	y0, x1, y1 = y0[:len(x0)], x1[:len(x0)], y1[:len(x0)]
	for i := range x0 {
		k := i & (dotBlock - 1)
		h0, l0 := bits.Mul64(x0[i], y0[i]<<shift)
		h1, l1 := bits.Mul64(x1[i], y1[i]<<shift)
		l, c := bits.Add64(l0, l1, 0)
		s.lo[k] = l
		s.hi[k], _ = bits.Add64(h0, h1, c)
	}
}

// add2 adds two products to each, so that the sums are read and written once.
func (s *sums) add2(x0, y0, x1, y1 []uint64, shift uint) {
	shift &= 63
	y0, x1, y1 = y0[:len(x0)], x1[:len(x0)], y1[:len(x0)]
	for i := range x0 {
		k := i & (dotBlock - 1)
		h0, l0 := bits.Mul64(x0[i], y0[i]<<shift)
		h1, l1 := bits.Mul64(x1[i], y1[i]<<shift)
		l, c := bits.Add64(l0, l1, 0)
		h, _ := bits.Add64(h0, h1, c)
		s.lo[k], c = bits.Add64(s.lo[k], l, 0)
		s.hi[k], _ = bits.Add64(s.hi[k], h, c)
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

// reduced returns the reduction of a sum over 2^64, fully reduced, for a high word
// below q.
func reduced(hi, lo, q, inv uint64) uint64 {
	h, _ := bits.Mul64(lo*inv, q)
	r, borrow := bits.Sub64(hi, h, 0)
	return r + q&-borrow
}

// mont returns x*y/2^64 mod q, for x*y < q*2^64 and inv = 1/q mod 2^64.
func mont(x, y, q, inv uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	return reduced(hi, lo, q, inv)
}

// below returns x mod q for x < 2q.
func below(x, q uint64) uint64 { return min(x, x-q) }
