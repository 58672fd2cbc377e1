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
			for n := 1; n < 45; n++ {
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

// TestClenshawAll holds series of all lengths and numbers of points against the
// sum of cosines that they are.
func TestClenshawAll(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	for n := 1; n < 70; n++ {
		c := make([]float64, 1+r.IntN(40))
		for i := range c {
			c[i] = r.NormFloat64()
		}
		u, want := make([]float64, n), make([]float64, n)
		for i := range u {
			u[i] = 2*r.Float64() - 1
			for k, x := range c {
				want[i] += x * math.Cos(float64(k)*math.Acos(u[i]))
			}
		}
		ClenshawAll(u, c)
		for i := range u {
			if math.Abs(u[i]-want[i]) > 1e-11 {
				t.Fatalf("%d coefficients, point %d of %d: %v, want %v", len(c), i, n, u[i], want[i])
			}
		}
	}
}
