package lattigo

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"github.com/home-fhe/home/ir"
)

// TestConstant compares constants times scales with arithmetic of any precision.
func TestConstant(t *testing.T) {
	p, err := ir.NewParams("constant", 9, ir.RingStandard, ir.SecretTernary, sizes(60, 44, 5), []int{60}, 44)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	r := must[*rings](t)(newRings(p))
	rng := rand.New(rand.NewPCG(3, 4))
	const prec = 1024
	check := func(c float64, s ir.Scale) {
		t.Helper()
		want := new(big.Float).SetPrec(prec).SetFloat64(c)
		want.SetMantExp(want, int(s.Two))
		for i, e := range s.Q {
			for range max(e, -e) {
				if q := new(big.Float).SetPrec(prec).SetUint64(p.Q[i]); e > 0 {
					want.Mul(want, q)
				} else {
					want.Quo(want, q)
				}
			}
		}
		want.Add(want, big.NewFloat(math.Copysign(0.5, c)))
		whole, _ := want.Int(nil)
		if whole.BitLen() > 230 && len(s.Q) > 0 {
			return // more than constants are exact to
		}
		got, err := r.constant(c, s)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range r.mods {
			if got, want := got.mod(m), m.bigMod(whole); got != want {
				t.Fatalf("%v times %s modulo %d is %d, want %d", c, s, m.Q, got, want)
			}
		}
	}
	for range 500 {
		s := ir.Scale{Two: rng.Int64N(80) - 20}
		for range rng.IntN(len(p.Q) + 1) {
			s.Q = append(s.Q, rng.Int64N(3)-1)
		}
		check((rng.Float64()-0.5)*math.Exp2(float64(rng.IntN(40)-20)), s)
	}
	for _, c := range []float64{0, 0.25, 0.5, 1.5, 2.5, -0.5, -1.5, math.Nextafter(0.5, 0), math.Nextafter(0.5, 1), 1 << 53, math.SmallestNonzeroFloat64, math.MaxFloat64} {
		for _, two := range []int64{0, -60, -193, -257, -300, 60, 300} {
			check(c, ir.ScaleTwo(int(two)))
		}
	}
	for _, c := range []float64{math.NaN(), math.Inf(1), math.Inf(-1)} {
		if _, err := r.constant(c, ir.ScaleTwo(1)); err == nil {
			t.Errorf("%v is a constant", c)
		}
	}
}
