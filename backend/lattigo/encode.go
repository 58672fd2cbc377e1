package lattigo

import (
	"fmt"
	"math"
	"math/big"
	"math/bits"

	"github.com/home-fhe/home/ir"
)

// encoder maps slot values to polynomial coefficients and back: slot j is the
// polynomial at zeta^(5^j), zeta a primitive root of order 4n for n transform
// points. The standard ring has n = N/2 points, whose complex coefficients are
// two real ones each; the conjugate-invariant ring has n = N points and real
// coefficients. (Cheon et al., ASIACRYPT 2017; Kim and Song, ICISC 2018.)
type encoder struct {
	n    int
	real bool // conjugate-invariant
	// tw[h..2h) are the factors of the layer that joins blocks of h points:
	// zeta_8h^(5^j), zeta_8h = e^(2*pi*i/8h).
	tw []complex128
}

func newEncoder(p *ir.Params) *encoder {
	e := &encoder{n: p.Slots(), real: p.Ring == ir.RingReal}
	e.tw = make([]complex128, e.n)
	for h := 1; h < e.n; h <<= 1 {
		g := 1
		for j := range h {
			s, c := math.Sincos(2 * math.Pi * float64(g) / float64(8*h))
			e.tw[h+j] = complex(c, s)
			g = g * 5 & (8*h - 1)
		}
	}
	return e
}

func bitReverse[T any](a []T) {
	shift := 64 - uint(bits.Len(uint(len(a)-1)))
	for i := range a {
		if j := int(bits.Reverse64(uint64(i)) >> shift); len(a) > 1 && i < j {
			a[i], a[j] = a[j], a[i]
		}
	}
}

// toSlots evaluates at the roots: the transform of decoding, in place, for a
// power of two of points.
func (e *encoder) toSlots(a []complex128) {
	bitReverse(a)
	for half := 1; half < len(a); half <<= 1 {
		tw := e.tw[half : 2*half]
		for base := 0; base < len(a); base += 2 * half {
			lo, hi := a[base:base+half], a[base+half:base+2*half]
			lo, hi = lo[:len(tw)], hi[:len(tw)]
			for j, w := range tw {
				t := hi[j] * w
				lo[j], hi[j] = lo[j]+t, lo[j]-t
			}
		}
	}
}

// toCoefs is the inverse of toSlots.
func (e *encoder) toCoefs(a []complex128) {
	for half := len(a) / 2; half >= 1; half >>= 1 {
		tw := e.tw[half : 2*half]
		for base := 0; base < len(a); base += 2 * half {
			lo, hi := a[base:base+half], a[base+half:base+2*half]
			lo, hi = lo[:len(tw)], hi[:len(tw)]
			for j, w := range tw {
				u, v := lo[j], hi[j]
				lo[j] = u + v
				v = u - v
				hi[j] = v * complex(real(w), -imag(w))
			}
		}
	}
	bitReverse(a)
	s := complex(1/float64(len(a)), 0)
	for i := range a {
		a[i] *= s
	}
}

// coefs computes the real coefficients of values*scale into c, N long, using
// work, n long.
func (e *encoder) coefs(values *ir.SlotData, scale float64, work []complex128, c []float64) error {
	if values.Period <= 0 || e.n%values.Period != 0 {
		return fmt.Errorf("slot values with period %d do not fit %d slots", values.Period, e.n)
	}
	// Values of a period n/k make a polynomial in X^k: a transform of n/k points
	// gives its coefficients.
	work = work[:values.Period]
	clear(work)
	for i, s := range values.Index {
		v := values.Value[i]
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("slot %d: %v cannot be encoded", s, v)
		}
		if s < 0 || int(s) >= values.Period {
			return fmt.Errorf("slot %d lies outside the period of %d", s, values.Period)
		}
		work[s] = complex(v, 0)
	}
	e.toCoefs(work)
	gap := e.n / values.Period
	if gap > 1 {
		clear(c)
	}
	for i, z := range work {
		c[i*gap] = real(z) * scale
	}
	if !e.real {
		for i, z := range work {
			c[e.n+i*gap] = imag(z) * scale
		}
	}
	return nil
}

// slots turns real coefficients, already divided by the scale, into slot values.
func (e *encoder) slots(c []float64, work []complex128) []float64 {
	out := make([]float64, e.n)
	if e.real {
		// The other half of the coefficients is c[2n-k] = -c[k]; as complex
		// numbers the upper half is the imaginary part.
		work[0] = complex(c[0], 0)
		for i := 1; i < e.n; i++ {
			work[i] = complex(c[i], -c[e.n-i])
		}
	} else {
		for i := range work {
			work[i] = complex(c[i], c[e.n+i])
		}
	}
	e.toSlots(work)
	for i, z := range work {
		out[i] = real(z)
	}
	return out
}

// residue rounds x to an integer and reduces it modulo m.
func (m *modulus) residue(x float64) uint64 {
	neg := x < 0
	if neg {
		x = -x
	}
	var r uint64
	if x < 1<<53 {
		r = m.reduce(uint64(int64(x + 0.5)))
	} else {
		f, exp := math.Frexp(x) // x = f*2^exp, f in [0.5, 1)
		r = m.reduce(uint64(int64(f * (1 << 53))))
		r = m.mul(r, m.pow(2, uint64(exp-53)))
	}
	if neg && r != 0 {
		r = m.q - r
	}
	return r
}

// residues writes the rounded coefficients modulo m.
func (m *modulus) residues(z []uint64, c []float64) {
	q := m.q
	for i, x := range c {
		if x < 1<<52 && x > -(1<<52) {
			// int64 truncates towards zero: round half away from zero.
			v := int64(x + math.Copysign(0.5, x))
			s := v >> 63 // all ones if negative
			r := m.reduce(uint64((v ^ s) - s))
			if s != 0 && r != 0 {
				r = q - r
			}
			z[i] = r
			continue
		}
		z[i] = m.residue(x)
	}
}

// centred reconstructs the coefficients, given modulo the moduli, as their
// representatives nearest zero, times 1/scale.
func centred(mods []*modulus, rows [][]uint64, scale *big.Float, c []float64) {
	n := len(c)
	if len(mods) == 1 {
		s, _ := scale.Float64()
		for i := range c {
			x := rows[0][i]
			if x > mods[0].half {
				c[i] = -float64(mods[0].q-x) / s
			} else {
				c[i] = float64(x) / s
			}
		}
		return
	}
	prod := big.NewInt(1)
	for _, m := range mods {
		prod.Mul(prod, new(big.Int).SetUint64(m.q))
	}
	half := new(big.Int).Rsh(prod, 1)
	parts := make([]*big.Int, len(mods))
	inv := make([]uint64, len(mods))
	for j, m := range mods {
		parts[j] = new(big.Int).Quo(prod, new(big.Int).SetUint64(m.q))
		inv[j] = m.form(m.invert(m.bigMod(parts[j])))
	}
	sum, t := new(big.Int), new(big.Int)
	f := new(big.Float).SetPrec(128)
	for i := 0; i < n; i++ {
		sum.SetUint64(0)
		for j, m := range mods {
			t.SetUint64(m.mred(rows[j][i], inv[j]))
			sum.Add(sum, t.Mul(t, parts[j]))
		}
		sum.Mod(sum, prod)
		if sum.Cmp(half) > 0 {
			sum.Sub(sum, prod)
		}
		f.SetInt(sum)
		c[i], _ = f.Quo(f, scale).Float64()
	}
}
