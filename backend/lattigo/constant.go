package lattigo

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/home-fhe/home/ir"
)

// integer is a whole number, mant*2^exp or its negative.
type integer struct {
	mant [4]uint64 // words in ascending order
	exp  uint
	neg  bool
}

// constant returns round(c*scale), the scale times more primes, halves away from zero.
func (r *rings) constant(c float64, s ir.Scale, more ...uint64) (integer, error) {
	if math.IsNaN(c) || math.IsInf(c, 0) {
		return integer{}, fmt.Errorf("constant %v", c)
	}
	if c == 0 {
		return integer{}, nil
	}
	x := s.Wide(r.p.Q).Times(ir.WideFloat(math.Abs(c)))
	for _, q := range more {
		x = x.Times(ir.WideInt(q))
	}
	z := integer{x.Mant, uint(max(x.Exp, 0)), c < 0}
	if x.Exp < 0 { // floor(2x), then half of that, rounded up
		z.shift(uint(-x.Exp - 1))
		half := z.mant[0] & 1
		z.shift(1)
		for k := range z.mant {
			z.mant[k], half = bits.Add64(z.mant[k], half, 0)
		}
	}
	return z, nil
}

// shift divides the mantissa by 2^k, rounding down.
func (x *integer) shift(k uint) {
	for ; k >= 64; k -= 64 {
		if x.mant == [4]uint64{} {
			return
		}
		copy(x.mant[:], x.mant[1:])
		x.mant[3] = 0
	}
	for i := range x.mant {
		x.mant[i] >>= k
		if i < 3 {
			x.mant[i] |= x.mant[i+1] << (64 - k)
		}
	}
}

// mod returns x mod q in [0, q).
func (x *integer) mod(m *modulus) uint64 {
	r := uint64(0)
	for k := range x.mant {
		_, r = bits.Div64(r, x.mant[3-k], m.Q)
	}
	if r = m.Times(r, m.Pow(2, uint64(x.exp))); x.neg && r > 0 {
		r = m.Q - r
	}
	return r
}
