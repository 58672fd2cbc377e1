package ir

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
)

// TestWide compares scales, and their products with floats, with big.Float at twice the
// precision.
func TestWide(t *testing.T) {
	const prec = 512
	rng := rand.New(rand.NewPCG(1, 2))
	big1 := func(x float64) *big.Float { return new(big.Float).SetPrec(prec).SetFloat64(x) }
	for range 300 {
		s := Scale{Two: rng.Int64N(400) - 200}
		var q []uint64
		want := new(big.Float).SetMantExp(big1(1), int(s.Two))
		for range rng.IntN(12) {
			x := rng.Uint64()>>rng.IntN(60) | 1
			if rng.IntN(8) == 0 {
				x = 1 << rng.IntN(64) // inverses of powers of two are exact
			}
			e := rng.Int64N(41) - 20
			q, s.Q = append(q, x), append(s.Q, e)
			f := new(big.Float).SetPrec(prec).SetUint64(x)
			for range max(e, -e) {
				if e > 0 {
					want.Mul(want, f)
				} else {
					want.Quo(want, f)
				}
			}
		}
		if near, _ := want.Float64(); s.Float64(q) != near {
			t.Errorf("%v of %v in double precision is %v, want %v", s, q, s.Float64(q), near)
		}
		c := math.Ldexp(rng.Float64()+1e-9, rng.IntN(200)-100)
		want.Mul(want, big1(c))
		w := s.Wide(q).Times(WideFloat(c))
		if w.Mant[3]>>63 == 0 {
			t.Fatalf("%v of %v: the top bit of %x is not set", s, q, w.Mant)
		}
		got := new(big.Float).SetPrec(prec)
		for k, m := range w.Mant {
			word := new(big.Float).SetPrec(prec).SetUint64(m)
			got.Add(got, word.SetMantExp(word, 64*k+w.Exp))
		}
		diff := got.Sub(got, want)
		if diff.Quo(diff, want); diff.Sign() > 0 || diff.Sign() < 0 && diff.MantExp(nil) > -245 {
			t.Errorf("%v of %v times %v: relative error %v", s, q, c, diff)
		}
	}
	for _, x := range []float64{math.SmallestNonzeroFloat64, math.MaxFloat64, 1} {
		w := WideFloat(x)
		if got := math.Ldexp(float64(w.Mant[3]), w.Exp+192); got != x || w.Mant[3]>>63 == 0 {
			t.Errorf("%v became %v", x, got)
		}
	}
}
