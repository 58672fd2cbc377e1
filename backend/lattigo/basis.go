package lattigo

import (
	"math/bits"

	"github.com/home-fhe/home/ir"
)

// basis converts residues from a group of source primes G to single target
// primes, exactly: with S the product of the sources, a value x is read as its
// centred representative in [-S/2, S/2) and reduced modulo the target (Halevi,
// Polyakov and Shoup, CT-RSA 2019, with the quotient from floating point; a
// quotient that is off by one at the very edge of the interval still gives a
// representative congruent to x).
type basis struct {
	src   []*modulus
	inv   []uint64   // (S/q_j)^-1 mod q_j, Montgomery form
	frac  []float64  // 1/q_j
	w     [][]uint64 // per target: S/q_j mod p, times 2^64
	neg   []uint64   // per target: -S mod p, times 2^64
	w52   [][]uint64 // the same times 2^52, for the vector kernels
	neg52 []uint64
	vec   bool     // all sources are below 2^50 and the machine has vectors
	down  []uint64 // per target: S^-1 mod p, Montgomery form; 0 where p divides S
}

func newBasis(src, targets []*modulus) *basis {
	b := &basis{src: src, vec: true}
	for j, s := range src {
		prod := uint64(1)
		for k, o := range src {
			if k != j {
				prod = s.mul(prod, o.q%s.q)
			}
		}
		b.inv = append(b.inv, s.form(s.invert(prod)))
		b.frac = append(b.frac, 1/float64(s.q))
		b.vec = b.vec && s.vec
	}
	for _, t := range targets {
		all := uint64(1)
		w, w52 := make([]uint64, len(src)), make([]uint64, len(src))
		for j, s := range src {
			all = t.mul(all, s.q%t.q)
			w[j] = 1
			for k, o := range src {
				if k != j {
					w[j] = t.mul(w[j], o.q%t.q)
				}
			}
			w[j], w52[j] = t.form64(w[j]), t.mul(w[j], (1<<52)%t.q)
		}
		neg := (t.q - all) % t.q
		b.w, b.w52 = append(b.w, w), append(b.w52, w52)
		b.neg, b.neg52 = append(b.neg, t.form64(neg)), append(b.neg52, t.mul(neg, (1<<52)%t.q))
		b.down = append(b.down, t.form(t.invert(all)))
	}
	return b
}

// prepare turns the coefficients of the source limbs, in place, into the digits
// y_j = x_j*(S/q_j)^-1 mod q_j, and v into the quotients: the centred value is
// sum y_j*(S/q_j) - v*S.
func (b *basis) prepare(rows [][]uint64, v []uint8) {
	if len(b.src) == 1 {
		return // convert compares with half by itself
	}
	const block = 512
	var sum [block]float64
	n := len(rows[0])
	for base := 0; base < n; base += block {
		end := min(base+block, n)
		for j, m := range b.src {
			c, f := b.inv[j], b.frac[j]
			x := rows[j][base:end]
			if m.any {
				if j == 0 {
					for i := range sum[:len(x)] {
						sum[i] = 0.5
					}
				}
				if c = m.mred(c, 1); m.vec {
					prepareVec(&x[0], &sum[0], len(x), c, shoup(c, m.q), m.q, f)
				} else {
					m.wide.Prepare(x, sum[:len(x)], c, f)
				}
				continue
			}
			q, inv := m.q, m.inv
			c <<= m.shift
			if j == 0 {
				for i, u := range x {
					y := mont(u, c, q, inv)
					x[i] = y
					sum[i&(block-1)] = 0.5 + float64(int64(y))*f
				}
				continue
			}
			for i, u := range x {
				y := mont(u, c, q, inv)
				x[i] = y
				sum[i&(block-1)] += float64(int64(y)) * f
			}
		}
		for i, out := 0, v[base:end]; i < len(out); i++ {
			out[i] = uint8(int32(sum[i&(block-1)]))
		}
	}
}

// centredRow reads x, residues modulo s, as numbers in [-s/2, s/2] and writes them
// modulo m, with entries below 4q.
func (m *modulus) centredRow(z, x []uint64, s uint64) {
	half, add := s>>1, m.q-s%m.q
	if m.vec && s <= 1<<52 {
		convert1Vec(&z[0], &x[0], len(z), half, add, 1, m.bar52, m.q)
		return
	}
	if m.wide != nil {
		m.wide.Centre(z, x, s, 1)
		return
	}
	bar := m.bar[0]
	if s < 2*m.q {
		bar = 0
	}
	q := m.q
	x = x[:len(z)]
	for i := 0; i < len(z); i += 8 {
		z, x := eight(z, i), eight(x, i)
		z[0] = centred1(x[0], half, add, bar, q)
		z[1] = centred1(x[1], half, add, bar, q)
		z[2] = centred1(x[2], half, add, bar, q)
		z[3] = centred1(x[3], half, add, bar, q)
		z[4] = centred1(x[4], half, add, bar, q)
		z[5] = centred1(x[5], half, add, bar, q)
		z[6] = centred1(x[6], half, add, bar, q)
		z[7] = centred1(x[7], half, add, bar, q)
	}
}

// centred1 returns x mod q, below 2q, plus add where x is above half.
func centred1(x, half, add, bar, q uint64) uint64 {
	_, above := bits.Sub64(half, x, 0)
	return x - mulHi(x, bar)*q + add&-above
}

// centredFormRow is centredRow followed by a product with c < q, in plain form, in
// one pass over the row.
func (m *modulus) centredFormRow(z, x []uint64, s, c uint64) {
	half, add := s>>1, m.mul((m.q-s%m.q)%m.q, c)
	if m.vec && s <= 1<<52 {
		convert1Vec(&z[0], &x[0], len(z), half, add, c, shoup(c, m.q), m.q)
		return
	}
	if m.wide != nil {
		m.wide.Centre(z, x, s, c)
		return
	}
	cs, _ := bits.Div64(c, 0, m.q) // floor(c*2^64/q)
	q := m.q
	x = x[:len(z)]
	for i := range z {
		a := add
		if x[i] <= half {
			a = 0
		}
		z[i] = x[i]*c - mulHi(x[i], cs)*q + a
	}
}

// convert writes the prepared value modulo target number t, in coefficient form
// with entries below 4p, ready for the transform.
func (b *basis) convert(z []uint64, t int, m *modulus, rows [][]uint64, v []uint8) {
	switch k := len(b.src); {
	case k == 1:
		m.centredRow(z, rows[0], b.src[0].q)
	case b.vec && m.vec:
		convertVec(&z[0], &rows[0], &b.w52[t][0], k, &v[0], b.neg52[t], len(z), m.q, m.neginv)
	case m.wide != nil && k <= 8:
		m.wide.Convert(z, rows, b.w[t], v, b.neg[t])
	case k == 2:
		x0, x1 := rows[0][:len(z)], rows[1][:len(z)]
		v = v[:len(z)]
		w0, w1, neg := b.w[t][0], b.w[t][1], b.neg[t]
		for i := range z {
			var s sum128
			s.mul(x0[i], w0)
			s.mac(x1[i], w1)
			s.mac(uint64(v[i]), neg)
			z[i] = s.lazy(m)
		}
	case k == 3:
		x0, x1, x2 := rows[0][:len(z)], rows[1][:len(z)], rows[2][:len(z)]
		v = v[:len(z)]
		w0, w1, w2, neg := b.w[t][0], b.w[t][1], b.w[t][2], b.neg[t]
		for i := range z {
			var s sum128
			s.mul(x0[i], w0)
			s.mac(x1[i], w1)
			s.mac(x2[i], w2)
			s.mac(uint64(v[i]), neg)
			z[i] = s.lazy(m)
		}
	default:
		m.convertRow(z, rows, b.w[t], v, b.neg[t])
	}
}

// convertRow sets z, below 4q, to (sum rows_k*w_k + v*neg)/2^64, two rows at a time.
func (m *modulus) convertRow(z []uint64, rows [][]uint64, w []uint64, v []uint8, neg uint64) {
	var s sums
	q, inv := m.q, m.inv
	for base := 0; base < len(z); base += dotBlock {
		out := z[base:min(base+dotBlock, len(z))]
		row := func(k int) []uint64 { return rows[k][base : base+len(out)] }
		for i, v := range v[base : base+len(out)] {
			s.hi[i&(dotBlock-1)], s.lo[i&(dotBlock-1)] = bits.Mul64(uint64(v), neg)
		}
		k := 0
		for ; k+1 < len(rows); k += 2 {
			x0, x1 := row(k), row(k+1)
			w0, w1 := w[k], w[k+1]
			for i := range x0 {
				h0, l0 := bits.Mul64(x0[i], w0)
				h1, l1 := bits.Mul64(x1[i], w1)
				l, c := bits.Add64(l0, l1, 0)
				h, _ := bits.Add64(h0, h1, c)
				j := i & (dotBlock - 1)
				s.lo[j], c = bits.Add64(s.lo[j], l, 0)
				s.hi[j], _ = bits.Add64(s.hi[j], h, c)
			}
		}
		if k < len(rows) {
			w := w[k]
			for i, x := range row(k) {
				h, l := bits.Mul64(x, w)
				var c uint64
				j := i & (dotBlock - 1)
				s.lo[j], c = bits.Add64(s.lo[j], l, 0)
				s.hi[j], _ = bits.Add64(s.hi[j], h, c)
			}
		}
		for i := range out {
			h, _ := bits.Mul64(s.lo[i&(dotBlock-1)]*inv, q)
			out[i] = s.hi[i&(dotBlock-1)] - h + q
		}
	}
}

// maxGroup is the number of targets converted at once where there are several
// sources: enough that reading the sources does not dominate, few enough that the
// results stay in cache. A single source is read so quickly that one target at a
// time is better.
const maxGroup = 4

func groupSize(p *ir.Params) int {
	if len(p.P) == 1 {
		return 1
	}
	return maxGroup
}

// convertGroup converts to up to four targets at once, as convert does to one.
func (b *basis) convertGroup(z [][]uint64, t []int, m []*modulus, rows [][]uint64, v []uint8) {
	vec := b.vec && len(z) == maxGroup && len(b.src) > 1
	for _, m := range m {
		vec = vec && m.vec
	}
	if !vec {
		for i := range z {
			b.convert(z[i], t[i], m[i], rows, v)
		}
		return
	}
	var out [4]*uint64
	var w [32]uint64
	var c [12]uint64
	for i := range z {
		out[i] = &z[i][0]
		for j, x := range b.w52[t[i]] {
			w[4*j+i] = x
		}
		c[i], c[4+i], c[8+i] = b.neg52[t[i]], m[i].q, m[i].neginv
	}
	convert4Vec(&out, &rows[0], &w, len(b.src), &v[0], &c, len(z[0]))
}
