package ir

import (
	"math/cmplx"
	"math/rand"
	"testing"
)

func TestDiagonals(t *testing.T) {
	const n = 64
	rng := rand.New(rand.NewSource(1))
	for _, c := range []struct {
		inv   bool
		parts []int
	}{{false, []int{0, 2, 4, 6}}, {true, []int{0, 3, 6}}, {false, []int{0, 6}}, {true, []int{0, 1, 5, 6}}} {
		x := make([]complex128, n)
		for i := range x {
			x[i] = complex(rng.NormFloat64(), rng.NormFloat64())
		}
		want := append([]complex128{}, x...)
		e := NewEmbedding(n)
		if c.inv {
			e.ToCoefs(want)
			bitReverse(want)
		} else {
			bitReverse(want)
			e.ToSlots(want)
		}
		got := x
		for k := range len(c.parts) - 1 {
			from, to := c.parts[k], c.parts[k+1]
			if c.inv {
				from, to = c.parts[len(c.parts)-2-k], c.parts[len(c.parts)-1-k]
			}
			out := make([]complex128, n)
			z := make([]complex128, n)
			for _, o := range Offsets(n, from, to) {
				d := SlotData{Period: n, DFT: &Diagonal{Inverse: c.inv, From: from, To: to, Offset: o, Shift: 3, Factor: 1}}
				if err := d.Check(); err != nil {
					t.Fatal(err)
				}
				d.Fill(z)
				for i, k := 0, d.Repeats(); i < n; i++ {
					if z[i] != z[i%k] || k != min(n, 1<<to) {
						t.Fatalf("%v, diagonal %d: slot %d is %v, slot %d is %v, and it repeats after %d", c, o, i, z[i], i%k, z[i%k], k)
					}
				}
				for i := range out {
					out[i] += z[(i+3)%n] * got[(i+o)%n]
				}
			}
			got = out
		}
		for i := range got {
			if cmplx.Abs(got[i]-want[i]) > 1e-10 {
				t.Fatalf("%v slot %d: %v, want %v", c, i, got[i], want[i])
			}
		}
	}
}
