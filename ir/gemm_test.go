package ir

import (
	"math"
	"math/rand/v2"
	"testing"

	"gorgonia.org/tensor"
)

// TestMatMul holds products of all remainders of the tiles against gorgonia's.
func TestMatMul(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 5))
	for _, k := range []int{1, 3, 40} {
		for m := 1; m < 14; m++ {
			for n := 1; n < 27; n++ {
				a, b := NewArray(m, k), NewArray(k, n)
				for _, x := range []*Array{a, b} {
					for i := range x.Data {
						x.Data[i] = r.NormFloat64()
					}
				}
				got, err := MatMul(a, b)
				if err != nil {
					t.Fatal(err)
				}
				want, err := tensor.MatMul(a.Dense(), b.Dense())
				if err != nil {
					t.Fatal(err)
				}
				for i, w := range want.Data().([]float64) {
					if math.Abs(got.Data[i]-w) > 1e-13*float64(k) {
						t.Fatalf("[%d,%d] times [%d,%d]: element %d is %v, want %v", m, k, k, n, i, got.Data[i], w)
					}
				}
			}
		}
	}
}
