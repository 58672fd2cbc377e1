package ir

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/bits"
)

// Wide is a positive number of 256 bits, Mant*2^Exp: what exact scales are evaluated in.
// The words of Mant are in ascending order, and its top bit is set. It takes no memory
// of its own, unlike big.Float. Products and inverses are cut off, which loses a relative
// 2^-255 at most.
type Wide struct {
	Mant [4]uint64
	Exp  int
}

// WideInt returns x > 0.
func WideInt(x uint64) Wide {
	lead := bits.LeadingZeros64(x)
	return Wide{[4]uint64{3: x << lead}, -192 - lead}
}

// WideFloat returns x, which is positive and finite.
func WideFloat(x float64) Wide {
	frac, exp := math.Frexp(x)
	z := WideInt(uint64(frac * (1 << 53)))
	z.Exp += exp - 53
	return z
}

// wideInverse returns 1/x for x > 0.
func wideInverse(x uint64) Wide {
	lead := bits.LeadingZeros64(x)
	if x <<= lead; x == 1<<63 {
		return Wide{[4]uint64{3: x}, lead - 318}
	}
	z := Wide{Exp: lead - 319} // of 2^319/x
	rest := uint64(1) << 63
	for k := range z.Mant {
		z.Mant[3-k], rest = bits.Div64(rest, 0, x)
	}
	return z
}

// Times returns x*y.
func (x Wide) Times(y Wide) Wide {
	var p [8]uint64
	for i, a := range x.Mant {
		up := uint64(0)
		for j, b := range y.Mant {
			hi, lo := bits.Mul64(a, b)
			var c, d uint64
			lo, c = bits.Add64(lo, up, 0)
			p[i+j], d = bits.Add64(p[i+j], lo, 0)
			up = hi + c + d // at most 2^64-1, as all that is added up is
		}
		p[i+4] = up
	}
	z := Wide{[4]uint64(p[4:]), x.Exp + y.Exp + 256}
	if z.Mant[3]>>63 == 0 {
		for k := range z.Mant {
			z.Mant[k] = p[k+4]<<1 | p[k+3]>>63
		}
		z.Exp--
	}
	return z
}

// Wide evaluates the scale for a chain of primes. Powers multiply the error of what they
// are of, so that the relative error of a scale that passes Check stays below 2^-230 for
// any chain of fewer than 2^11 primes.
func (s Scale) Wide(q []uint64) Wide {
	z := WideInt(1)
	for i, e := range s.Q {
		if e == 0 {
			continue
		}
		x := WideInt(q[i])
		if e < 0 {
			x, e = wideInverse(q[i]), -e
		}
		for { // square and multiply
			if e&1 == 1 {
				z = z.Times(x)
			}
			if e >>= 1; e == 0 {
				break
			}
			x = x.Times(x)
		}
	}
	z.Exp += int(s.Two)
	return z
}

// Float evaluates the scale for a chain of primes with 192 bits of mantissa.
func (s Scale) Float(q []uint64) *big.Float {
	w := s.Wide(q)
	var bytes [32]byte
	for k, x := range w.Mant {
		binary.BigEndian.PutUint64(bytes[24-8*k:], x)
	}
	f := new(big.Float).SetPrec(192).SetInt(new(big.Int).SetBytes(bytes[:]))
	return f.SetMantExp(f, w.Exp)
}

// Float64 evaluates the scale in double precision.
func (s Scale) Float64(q []uint64) float64 {
	w := s.Wide(q)
	top := w.Mant[3]
	if w.Mant[0]|w.Mant[1]|w.Mant[2] != 0 {
		top |= 1 // below what is rounded to, but no tie
	}
	return math.Ldexp(float64(top), w.Exp+192)
}
