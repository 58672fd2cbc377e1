package kernels

import (
	"math/bits"
	"unsafe"
)

// portable is the form in plain Go, for every prime and every machine. The others
// inherit what they do no better.
type portable struct {
	Prime
	t portableTransform
}

func newPortable(p Prime, t *Transform) *portable {
	return &portable{Prime: p, t: newPortableTransform(&p, t)}
}

func (m *portable) Form() Form   { return Portable }
func (m *portable) Bytes() int64 { return m.t.bytes() }

// eight returns residues i..i+7 of a row, whose length is a multiple of eight: with one
// comparison instead of eight, or of the arithmetic of a slice.
func eight(x []uint64, i int) *[8]uint64 { return (*[8]uint64)(unsafe.Pointer(&x[i])) }

func (m *portable) Add(z, x, y []uint64) {
	q := m.Q
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

func (m *portable) Sub(z, x, y []uint64) {
	q := m.Q
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

func (m *portable) AddConst(z, x []uint64, c uint64) {
	q := m.Q
	x = x[:len(z)]
	for i := range z {
		z[i] = below(x[i]+c, q)
	}
}

func (m *portable) MulConst(z, x []uint64, c uint64) {
	q, s := m.Q, m.quotient(c)
	x = x[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, x := eight(z, i), eight(x, i)
		z[0] = below(lazy(x[0], c, s, q), q)
		z[1] = below(lazy(x[1], c, s, q), q)
		z[2] = below(lazy(x[2], c, s, q), q)
		z[3] = below(lazy(x[3], c, s, q), q)
		z[4] = below(lazy(x[4], c, s, q), q)
		z[5] = below(lazy(x[5], c, s, q), q)
		z[6] = below(lazy(x[6], c, s, q), q)
		z[7] = below(lazy(x[7], c, s, q), q)
	}
}

func (m *portable) MacConst(z, a, x []uint64, c uint64) {
	q, s := m.Q, m.quotient(c)
	a, x = a[:len(z)], x[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, a, x := eight(z, i), eight(a, i), eight(x, i)
		z[0] = below(a[0]+below(lazy(x[0], c, s, q), q), q)
		z[1] = below(a[1]+below(lazy(x[1], c, s, q), q), q)
		z[2] = below(a[2]+below(lazy(x[2], c, s, q), q), q)
		z[3] = below(a[3]+below(lazy(x[3], c, s, q), q), q)
		z[4] = below(a[4]+below(lazy(x[4], c, s, q), q), q)
		z[5] = below(a[5]+below(lazy(x[5], c, s, q), q), q)
		z[6] = below(a[6]+below(lazy(x[6], c, s, q), q), q)
		z[7] = below(a[7]+below(lazy(x[7], c, s, q), q), q)
	}
}

func (m *portable) SubMul(z, x, y []uint64, c uint64) {
	q, s := m.Q, m.quotient(c)
	x, y = x[:len(z)], y[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, x, y := eight(z, i), eight(x, i), eight(y, i)
		z[0] = below(lazy(x[0]+q-y[0], c, s, q), q)
		z[1] = below(lazy(x[1]+q-y[1], c, s, q), q)
		z[2] = below(lazy(x[2]+q-y[2], c, s, q), q)
		z[3] = below(lazy(x[3]+q-y[3], c, s, q), q)
		z[4] = below(lazy(x[4]+q-y[4], c, s, q), q)
		z[5] = below(lazy(x[5]+q-y[5], c, s, q), q)
		z[6] = below(lazy(x[6]+q-y[6], c, s, q), q)
		z[7] = below(lazy(x[7]+q-y[7], c, s, q), q)
	}
}

func (m *portable) Mul(z, x, y []uint64) {
	q, inv, shift := m.Q, m.inv, m.shift&63
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

func (m *portable) Mac(z, a, x, y []uint64) {
	q, inv := m.Q, m.inv
	a, x, y = a[:len(z)], x[:len(z)], y[:len(z)]
	if m.shift > 0 {
		for i := 0; i < len(z); i += 8 {
			z, a, x, y := eight(z, i), eight(a, i), eight(x, i), eight(y, i)
			z[0] = below(a[0]+mont(x[0], y[0]<<narrowShift, q, inv), q)
			z[1] = below(a[1]+mont(x[1], y[1]<<narrowShift, q, inv), q)
			z[2] = below(a[2]+mont(x[2], y[2]<<narrowShift, q, inv), q)
			z[3] = below(a[3]+mont(x[3], y[3]<<narrowShift, q, inv), q)
			z[4] = below(a[4]+mont(x[4], y[4]<<narrowShift, q, inv), q)
			z[5] = below(a[5]+mont(x[5], y[5]<<narrowShift, q, inv), q)
			z[6] = below(a[6]+mont(x[6], y[6]<<narrowShift, q, inv), q)
			z[7] = below(a[7]+mont(x[7], y[7]<<narrowShift, q, inv), q)
		}
		return
	}
	for i := 0; i < len(z); i += 8 {
		z, a, x, y := eight(z, i), eight(a, i), eight(x, i), eight(y, i)
		z[0] = below(a[0]+mont(x[0], y[0], q, inv), q)
		z[1] = below(a[1]+mont(x[1], y[1], q, inv), q)
		z[2] = below(a[2]+mont(x[2], y[2], q, inv), q)
		z[3] = below(a[3]+mont(x[3], y[3], q, inv), q)
		z[4] = below(a[4]+mont(x[4], y[4], q, inv), q)
		z[5] = below(a[5]+mont(x[5], y[5], q, inv), q)
		z[6] = below(a[6]+mont(x[6], y[6], q, inv), q)
		z[7] = below(a[7]+mont(x[7], y[7], q, inv), q)
	}
}

func (m *portable) Tensor(d0, d1, d2, a0, a1, b0, b1 []uint64) {
	n := len(d0)
	square := &a0[0] == &b0[0] && &a1[0] == &b1[0]
	d1, d2, a0, a1, b0, b1 = d1[:n], d2[:n], a0[:n], a1[:n], b0[:n], b1[:n]
	q, inv, shift := m.Q, m.inv, m.shift&63
	r2 := m.Montgomery(m.Montgomery(1)) << shift
	if square {
		for i := range d0 {
			y0, y1 := a0[i], a1[i]
			x0, x1 := mont(y0, r2, q, inv)<<shift, mont(y1, r2, q, inv)<<shift // to Montgomery form
			d0[i] = mont(x0, y0, q, inv)
			d2[i] = mont(x1, y1, q, inv)
			d1[i] = below(2*mont(x0, y1, q, inv), q)
		}
		return
	}
	for i := range d0 {
		x0, x1 := mont(a0[i], r2, q, inv)<<shift, mont(a1[i], r2, q, inv)<<shift
		y0, y1 := b0[i], b1[i]
		d0[i] = mont(x0, y0, q, inv)
		d2[i] = mont(x1, y1, q, inv)
		var s sum128
		s.mul(x0, y1)
		s.mac(x1, y0)
		d1[i] = reduced(s.hi, s.lo, q, inv) // the high word is below 2*q*q/2^64*2^12 < q
	}
}

func (m *portable) Centre(z, x []uint64, s, c uint64) {
	q, cs := m.Q, m.quotient(c)
	half, add := s>>1, m.Times((q-s%q)%q, c)
	x = x[:len(z)]
	if c == 1 && s < 3*q { // as it is, x is small enough
		for i := 0; i < len(z); i += 8 {
			z, x := eight(z, i), eight(x, i)
			z[0] = x[0] + above(x[0], half, add)
			z[1] = x[1] + above(x[1], half, add)
			z[2] = x[2] + above(x[2], half, add)
			z[3] = x[3] + above(x[3], half, add)
			z[4] = x[4] + above(x[4], half, add)
			z[5] = x[5] + above(x[5], half, add)
			z[6] = x[6] + above(x[6], half, add)
			z[7] = x[7] + above(x[7], half, add)
		}
		return
	}
	for i := 0; i < len(z); i += 8 {
		z, x := eight(z, i), eight(x, i)
		z[0] = lazy(x[0], c, cs, q) + above(x[0], half, add)
		z[1] = lazy(x[1], c, cs, q) + above(x[1], half, add)
		z[2] = lazy(x[2], c, cs, q) + above(x[2], half, add)
		z[3] = lazy(x[3], c, cs, q) + above(x[3], half, add)
		z[4] = lazy(x[4], c, cs, q) + above(x[4], half, add)
		z[5] = lazy(x[5], c, cs, q) + above(x[5], half, add)
		z[6] = lazy(x[6], c, cs, q) + above(x[6], half, add)
		z[7] = lazy(x[7], c, cs, q) + above(x[7], half, add)
	}
}

// above returns add where x is above half, else 0.
func above(x, half, add uint64) uint64 {
	_, borrow := bits.Sub64(half, x, 0)
	return add & -borrow
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

// lazy returns the sum over 2^64 mod q in [0, 3q), for a high word below 2q.
func (s *sum128) lazy(q, inv uint64) uint64 { return s.hi - mulHi(s.lo*inv, q) + q }

// dotBlock is the number of residues whose 128-bit sums are held at a time: few enough for
// the first cache to hold them with the rows that they are made of.
const dotBlock = 256

func (m *portable) Dot(z0, z1 []uint64, x, y0, y1 [][]uint64) {
	var s sums
	for base := 0; base < len(z0); base += dotBlock {
		end := min(base+dotBlock, len(z0))
		m.dot(&s, z0[base:end], nil, nil, x, y0, base)
		m.dot(&s, z1[base:end], nil, nil, x, y1, base)
	}
}

// sums is a block of sums of products in 128 bits.
type sums struct{ hi, lo [dotBlock]uint64 }

// dot sets z, a block of rows from residue base on, to the sum of x_k*y_k and, unless a is
// nil, a*f, the block f being all of one factor. It reads and writes the sums, s, once for
// three terms, and shifts them rather than each product to where primes below MaxNarrow
// want them.
func (m *portable) dot(s *sums, z, a, f []uint64, x, y [][]uint64, base int) {
	end := base + len(z)
	terms := len(x)
	if a != nil {
		terms++
	}
	d := (terms-1)%3 + 1
	row := func(r [][]uint64, k int) []uint64 { return r[k][base:end] }
	switch {
	case a == nil && d == 1:
		s.set1(row(x, 0), row(y, 0))
	case a == nil && d == 2:
		s.set2(row(x, 0), row(y, 0), row(x, 1), row(y, 1))
	case a == nil:
		s.set3(row(x, 0), row(y, 0), row(x, 1), row(y, 1), row(x, 2), row(y, 2))
	case d == 1:
		s.set1(a[base:end], f)
	case d == 2:
		s.set2(a[base:end], f, row(x, 0), row(y, 0))
	default:
		s.set3(a[base:end], f, row(x, 0), row(y, 0), row(x, 1), row(y, 1))
	}
	d -= terms - len(x)
	for ; d < len(x); d += 3 {
		if terms > MaxTerms && d+3 == len(x) { // else sums may need more than 128 bits
			for i, hi := range s.hi {
				s.hi[i] = m.Reduce(hi)
			}
		}
		s.add3(row(x, d), row(y, d), row(x, d+1), row(y, d+1), row(x, d+2), row(y, d+2))
	}
	q, inv, shift := m.Q, m.inv<<m.shift, m.shift
	switch {
	case bits.Len(uint(terms))+bits.Len64(q)+int(shift) > 64: // sums may reach q times the radix
		for i := range z {
			k := i & (dotBlock - 1)
			hi, lo := s.hi[k], s.lo[k]
			z[i] = reduced(m.Reduce(hi<<shift|lo>>(64-shift)), lo, q, inv)
		}
	case shift > 0:
		s.narrow(z, q, inv)
	default:
		s.wide(z, q, inv)
	}
}

// narrow sets z to the sums over 2^(64-narrowShift) mod q, for sums below q times that
// and inv = 2^narrowShift/q mod 2^64.
func (s *sums) narrow(z []uint64, q, inv uint64) {
	for i := 0; i < len(z); i += 8 {
		z, hi, lo := eight(z, i), eight(s.hi[:], i), eight(s.lo[:], i)
		z[0] = reduced(hi[0]<<narrowShift|lo[0]>>(64-narrowShift), lo[0], q, inv)
		z[1] = reduced(hi[1]<<narrowShift|lo[1]>>(64-narrowShift), lo[1], q, inv)
		z[2] = reduced(hi[2]<<narrowShift|lo[2]>>(64-narrowShift), lo[2], q, inv)
		z[3] = reduced(hi[3]<<narrowShift|lo[3]>>(64-narrowShift), lo[3], q, inv)
		z[4] = reduced(hi[4]<<narrowShift|lo[4]>>(64-narrowShift), lo[4], q, inv)
		z[5] = reduced(hi[5]<<narrowShift|lo[5]>>(64-narrowShift), lo[5], q, inv)
		z[6] = reduced(hi[6]<<narrowShift|lo[6]>>(64-narrowShift), lo[6], q, inv)
		z[7] = reduced(hi[7]<<narrowShift|lo[7]>>(64-narrowShift), lo[7], q, inv)
	}
}

// wide is the same for 2^64.
func (s *sums) wide(z []uint64, q, inv uint64) {
	for i := 0; i < len(z); i += 8 {
		z, hi, lo := eight(z, i), eight(s.hi[:], i), eight(s.lo[:], i)
		z[0] = reduced(hi[0], lo[0], q, inv)
		z[1] = reduced(hi[1], lo[1], q, inv)
		z[2] = reduced(hi[2], lo[2], q, inv)
		z[3] = reduced(hi[3], lo[3], q, inv)
		z[4] = reduced(hi[4], lo[4], q, inv)
		z[5] = reduced(hi[5], lo[5], q, inv)
		z[6] = reduced(hi[6], lo[6], q, inv)
		z[7] = reduced(hi[7], lo[7], q, inv)
	}
}

// set1 makes the sums of one product.
func (s *sums) set1(x, y []uint64) {
	for i := 0; i < len(x); i += 8 {
		hi, lo, x, y := eight(s.hi[:], i), eight(s.lo[:], i), eight(x, i), eight(y, i)
		hi[0], lo[0] = bits.Mul64(x[0], y[0])
		hi[1], lo[1] = bits.Mul64(x[1], y[1])
		hi[2], lo[2] = bits.Mul64(x[2], y[2])
		hi[3], lo[3] = bits.Mul64(x[3], y[3])
		hi[4], lo[4] = bits.Mul64(x[4], y[4])
		hi[5], lo[5] = bits.Mul64(x[5], y[5])
		hi[6], lo[6] = bits.Mul64(x[6], y[6])
		hi[7], lo[7] = bits.Mul64(x[7], y[7])
	}
}

// set2 makes the sums of two products.
func (s *sums) set2(x0, y0, x1, y1 []uint64) {
	for i := 0; i < len(x0); i += 8 {
		hi, lo := eight(s.hi[:], i), eight(s.lo[:], i)
		x0, y0, x1, y1 := eight(x0, i), eight(y0, i), eight(x1, i), eight(y1, i)
		hi[0], lo[0] = two(x0[0], y0[0], x1[0], y1[0])
		hi[1], lo[1] = two(x0[1], y0[1], x1[1], y1[1])
		hi[2], lo[2] = two(x0[2], y0[2], x1[2], y1[2])
		hi[3], lo[3] = two(x0[3], y0[3], x1[3], y1[3])
		hi[4], lo[4] = two(x0[4], y0[4], x1[4], y1[4])
		hi[5], lo[5] = two(x0[5], y0[5], x1[5], y1[5])
		hi[6], lo[6] = two(x0[6], y0[6], x1[6], y1[6])
		hi[7], lo[7] = two(x0[7], y0[7], x1[7], y1[7])
	}
}

// set3 makes the sums of three products.
func (s *sums) set3(x0, y0, x1, y1, x2, y2 []uint64) {
	for i := 0; i < len(x0); i += 8 {
		hi, lo := eight(s.hi[:], i), eight(s.lo[:], i)
		x0, y0, x1, y1, x2, y2 := eight(x0, i), eight(y0, i), eight(x1, i), eight(y1, i), eight(x2, i), eight(y2, i)
		hi[0], lo[0] = three(x0[0], y0[0], x1[0], y1[0], x2[0], y2[0])
		hi[1], lo[1] = three(x0[1], y0[1], x1[1], y1[1], x2[1], y2[1])
		hi[2], lo[2] = three(x0[2], y0[2], x1[2], y1[2], x2[2], y2[2])
		hi[3], lo[3] = three(x0[3], y0[3], x1[3], y1[3], x2[3], y2[3])
		hi[4], lo[4] = three(x0[4], y0[4], x1[4], y1[4], x2[4], y2[4])
		hi[5], lo[5] = three(x0[5], y0[5], x1[5], y1[5], x2[5], y2[5])
		hi[6], lo[6] = three(x0[6], y0[6], x1[6], y1[6], x2[6], y2[6])
		hi[7], lo[7] = three(x0[7], y0[7], x1[7], y1[7], x2[7], y2[7])
	}
}

// add3 adds three products to each.
func (s *sums) add3(x0, y0, x1, y1, x2, y2 []uint64) {
	for i := 0; i < len(x0); i += 8 {
		hi, lo := eight(s.hi[:], i), eight(s.lo[:], i)
		x0, y0, x1, y1, x2, y2 := eight(x0, i), eight(y0, i), eight(x1, i), eight(y1, i), eight(x2, i), eight(y2, i)
		h, l := three(x0[0], y0[0], x1[0], y1[0], x2[0], y2[0])
		hi[0], lo[0] = plus(hi[0], lo[0], h, l)
		h, l = three(x0[1], y0[1], x1[1], y1[1], x2[1], y2[1])
		hi[1], lo[1] = plus(hi[1], lo[1], h, l)
		h, l = three(x0[2], y0[2], x1[2], y1[2], x2[2], y2[2])
		hi[2], lo[2] = plus(hi[2], lo[2], h, l)
		h, l = three(x0[3], y0[3], x1[3], y1[3], x2[3], y2[3])
		hi[3], lo[3] = plus(hi[3], lo[3], h, l)
		h, l = three(x0[4], y0[4], x1[4], y1[4], x2[4], y2[4])
		hi[4], lo[4] = plus(hi[4], lo[4], h, l)
		h, l = three(x0[5], y0[5], x1[5], y1[5], x2[5], y2[5])
		hi[5], lo[5] = plus(hi[5], lo[5], h, l)
		h, l = three(x0[6], y0[6], x1[6], y1[6], x2[6], y2[6])
		hi[6], lo[6] = plus(hi[6], lo[6], h, l)
		h, l = three(x0[7], y0[7], x1[7], y1[7], x2[7], y2[7])
		hi[7], lo[7] = plus(hi[7], lo[7], h, l)
	}
}

// three returns x0*y0 + x1*y1 + x2*y2.
func three(x0, y0, x1, y1, x2, y2 uint64) (hi, lo uint64) {
	hi, lo = bits.Mul64(x0, y0)
	h, l := bits.Mul64(x1, y1)
	lo, c := bits.Add64(lo, l, 0)
	hi, _ = bits.Add64(hi, h, c)
	h, l = bits.Mul64(x2, y2)
	lo, c = bits.Add64(lo, l, 0)
	hi, _ = bits.Add64(hi, h, c)
	return hi, lo
}

// two returns x0*y0 + x1*y1.
func two(x0, y0, x1, y1 uint64) (hi, lo uint64) {
	h0, l0 := bits.Mul64(x0, y0)
	h1, l1 := bits.Mul64(x1, y1)
	return plus(h0, l0, h1, l1)
}

// plus returns the sum of numbers of 128 bits.
func plus(h0, l0, h1, l1 uint64) (hi, lo uint64) {
	lo, c := bits.Add64(l0, l1, 0)
	hi, _ = bits.Add64(h0, h1, c)
	return hi, lo
}

// convert sets z, below 3q, to (sum of x_k*w_k + v*neg)/2^64, for at most maxSources
// words x below 2^61.
func (p *Prime) convert(z []uint64, x [][]uint64, w []uint64, v []uint8, neg uint64) {
	q, inv := p.Q, p.inv
	v = v[:len(z)]
	switch len(x) {
	case 2:
		x0, x1 := x[0][:len(z)], x[1][:len(z)]
		w0, w1 := w[0], w[1]
		for i := range z {
			var s sum128
			s.mul(x0[i], w0)
			s.mac(x1[i], w1)
			s.mac(uint64(v[i]), neg)
			z[i] = s.lazy(q, inv)
		}
		return
	case 3:
		x0, x1, x2 := x[0][:len(z)], x[1][:len(z)], x[2][:len(z)]
		w0, w1, w2 := w[0], w[1], w[2]
		for i := range z {
			var s sum128
			s.mul(x0[i], w0)
			s.mac(x1[i], w1)
			s.mac(x2[i], w2)
			s.mac(uint64(v[i]), neg)
			z[i] = s.lazy(q, inv)
		}
		return
	}
	var s sums
	for base := 0; base < len(z); base += dotBlock {
		out, v := z[base:min(base+dotBlock, len(z))], v[base:]
		row := func(k int) []uint64 { return x[k][base : base+len(out)] }
		k := len(x) & 1
		if k == 1 {
			for i, x := range row(0) {
				s.hi[i&(dotBlock-1)], s.lo[i&(dotBlock-1)] = two(x, w[0], uint64(v[i]), neg)
			}
		} else {
			for i := range out {
				s.hi[i&(dotBlock-1)], s.lo[i&(dotBlock-1)] = bits.Mul64(uint64(v[i]), neg)
			}
		}
		for ; k+2 < len(x); k += 2 {
			s.addConst2(row(k), row(k+1), w[k], w[k+1])
		}
		s.lazy2(out, row(k), row(k+1), w[k], w[k+1], q, inv)
	}
}

// addConst2 adds x0*w0 + x1*w1 to each sum.
func (s *sums) addConst2(x0, x1 []uint64, w0, w1 uint64) {
	for i := 0; i < len(x0); i += 8 {
		hi, lo, x0, x1 := eight(s.hi[:], i), eight(s.lo[:], i), eight(x0, i), eight(x1, i)
		h, l := two(x0[0], w0, x1[0], w1)
		hi[0], lo[0] = plus(hi[0], lo[0], h, l)
		h, l = two(x0[1], w0, x1[1], w1)
		hi[1], lo[1] = plus(hi[1], lo[1], h, l)
		h, l = two(x0[2], w0, x1[2], w1)
		hi[2], lo[2] = plus(hi[2], lo[2], h, l)
		h, l = two(x0[3], w0, x1[3], w1)
		hi[3], lo[3] = plus(hi[3], lo[3], h, l)
		h, l = two(x0[4], w0, x1[4], w1)
		hi[4], lo[4] = plus(hi[4], lo[4], h, l)
		h, l = two(x0[5], w0, x1[5], w1)
		hi[5], lo[5] = plus(hi[5], lo[5], h, l)
		h, l = two(x0[6], w0, x1[6], w1)
		hi[6], lo[6] = plus(hi[6], lo[6], h, l)
		h, l = two(x0[7], w0, x1[7], w1)
		hi[7], lo[7] = plus(hi[7], lo[7], h, l)
	}
}

// lazy2 does, too, and sets z to the sums over 2^64 mod q in [0, 3q), for sums below
// 2q*2^64.
func (s *sums) lazy2(z, x0, x1 []uint64, w0, w1, q, inv uint64) {
	for i := 0; i < len(z); i += 8 {
		z, hi, lo, x0, x1 := eight(z, i), eight(s.hi[:], i), eight(s.lo[:], i), eight(x0, i), eight(x1, i)
		h, l := two(x0[0], w0, x1[0], w1)
		h, l = plus(hi[0], lo[0], h, l)
		z[0] = h - mulHi(l*inv, q) + q
		h, l = two(x0[1], w0, x1[1], w1)
		h, l = plus(hi[1], lo[1], h, l)
		z[1] = h - mulHi(l*inv, q) + q
		h, l = two(x0[2], w0, x1[2], w1)
		h, l = plus(hi[2], lo[2], h, l)
		z[2] = h - mulHi(l*inv, q) + q
		h, l = two(x0[3], w0, x1[3], w1)
		h, l = plus(hi[3], lo[3], h, l)
		z[3] = h - mulHi(l*inv, q) + q
		h, l = two(x0[4], w0, x1[4], w1)
		h, l = plus(hi[4], lo[4], h, l)
		z[4] = h - mulHi(l*inv, q) + q
		h, l = two(x0[5], w0, x1[5], w1)
		h, l = plus(hi[5], lo[5], h, l)
		z[5] = h - mulHi(l*inv, q) + q
		h, l = two(x0[6], w0, x1[6], w1)
		h, l = plus(hi[6], lo[6], h, l)
		z[6] = h - mulHi(l*inv, q) + q
		h, l = two(x0[7], w0, x1[7], w1)
		h, l = plus(hi[7], lo[7], h, l)
		z[7] = h - mulHi(l*inv, q) + q
	}
}

func (m *portable) Repeat(z, x []uint64) {
	k := len(z) / len(x)
	for i, v := range x {
		y := z[i*k : (i+1)*k]
		if k < 8 {
			for j := range y {
				y[j] = v
			}
			continue
		}
		for j := 0; j < k; j += 8 {
			y := eight(y, j)
			y[0], y[1], y[2], y[3], y[4], y[5], y[6], y[7] = v, v, v, v, v, v, v, v
		}
	}
}

// prepare multiplies x with c, plain, and adds frac times that to sum.
func (p *Prime) prepare(x []uint64, sum []float64, c uint64, frac float64) {
	q, s := p.Q, p.quotient(c)
	sum = sum[:len(x)]
	for i, u := range x {
		y := below(lazy(u, c, s, q), q)
		x[i] = y
		// The conversion keeps compilers from fusing product and sum, whose result
		// would differ from machine to machine.
		sum[i] += float64(float64(int64(y)) * frac)
	}
}
