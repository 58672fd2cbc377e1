package kernels

import (
	"math/rand/v2"
	"slices"
	"testing"
	"unsafe"
)

// TestDotMap holds DotMap against the sum, the product and the automorphism that it
// joins, on extreme and random words, with results on and off the lines of the cache.
func TestDotMap(t *testing.T) {
	for _, form := range Supported() {
		rng := rand.New(rand.NewPCG(5, 1))
		for _, q := range testPrimes {
			m := rowsOf(t, q, form)
			for _, n := range []int{32, 64, 512} {
				for _, terms := range []int{1, 2, 5, 12, 22, 23, 24, MaxTerms} {
					testDotMap(t, rng, m, n, terms)
				}
			}
		}
	}
}

func testDotMap(t *testing.T, rng *rand.Rand, m *Modulus, n, terms int) {
	t.Helper()
	order := uint64(2*n) << rng.IntN(2)
	g := rng.Uint64N(order) | 1
	var phi Automorphism
	phi.Set(n, order, g, m.Form())
	var x, y0, y1 [][]uint64
	for range terms {
		x, y0, y1 = append(x, words(rng, n, m.Q, m.Q)), append(y0, words(rng, n, m.Q, m.Q)), append(y1, words(rng, n, m.Q, m.Q))
	}
	a, f := words(rng, n, m.Q, m.Q), words(rng, 1, m.Q, m.Q)[0]
	for k := range x { // the largest sums
		x[k][0], y0[k][0], y1[k][0] = m.Q-1, m.Q-1, m.Q-1
	}
	a[0] = m.Q - 1
	sum0, sum1, with, z := make([]uint64, n), make([]uint64, n), make([]uint64, n), make([]uint64, n)
	m.Dot(sum0, sum1, x, y0, y1)
	m.MacConst(with, sum0, a, f)
	image := func(x []uint64) []uint64 { phi.Apply(z, x); return slices.Clone(z) }
	aligned := make([]uint64, 2*n+8)
	aligned = aligned[-uintptr(unsafe.Pointer(&aligned[0]))%line/8:]
	for _, far := range []bool{false, true} {
		for _, a := range [][]uint64{nil, a} {
			want := [2][]uint64{image(sum0), image(sum1)}
			if a != nil {
				want[0] = image(with)
			}
			compare := func(what string, z [2][]uint64) {
				t.Helper()
				for k := range z {
					if !slices.Equal(z[k], want[k]) {
						t.Errorf("%s modulo %d, %d values under X^%d, %d terms, far %v, a %v: sum %d is wrong in %s rows", m.Form(), m.Q, n, g, terms, far, a != nil, k, what)
					}
				}
			}
			u, v := newGuarded(n), newGuarded(n)
			m.DotMap(u.row(), v.row(), a, f, 0, x, y0, y1, &phi, far)
			u.check(t, "DotMap")
			v.check(t, "DotMap")
			compare("unaligned", [2][]uint64{u.row(), v.row()})
			clear(aligned)
			m.DotMap(aligned[:n], aligned[n:2*n], a, f, 0, x, y0, y1, &phi, far)
			compare("aligned", [2][]uint64{aligned[:n], aligned[n : 2*n]})
		}
	}
}

// TestDotMapRefuses gives it what it must not take.
func TestDotMapRefuses(t *testing.T) {
	for _, form := range Supported() {
		m := rowsOf(t, 12289, form)
		var phi, small Automorphism
		phi.Set(128, 256, 5, form)
		small.Set(64, 128, 5, form)
		row := func() []uint64 { return make([]uint64, 128) }
		x, y0, y1 := [][]uint64{row()}, [][]uint64{row()}, [][]uint64{row()}
		z, a := row(), row()
		half := func(x [][]uint64) [][]uint64 { return [][]uint64{x[0][:64]} }
		for what, f := range map[string]func(){
			"an addend that is a result":    func() { m.DotMap(z, row(), z, 1, 0, x, y0, y1, &phi, false) },
			"a short addend":                func() { m.DotMap(z, row(), a[:64], 1, 0, x, y0, y1, &phi, false) },
			"one result for both sums":      func() { m.DotMap(z, z, a, 1, 0, x, y0, y1, &phi, true) },
			"a result among the terms":      func() { m.DotMap(x[0], z, a, 1, 0, x, y0, y1, &phi, true) },
			"no terms":                      func() { m.DotMap(z, row(), a, 1, 0, nil, nil, nil, &phi, false) },
			"an automorphism of other rows": func() { m.DotMap(z, row(), a, 1, 0, x, y0, y1, &small, false) },
			"a part beyond the rows":        func() { m.DotMap(z, row(), nil, 1, 8, x, y0, y1, &phi, false) },
			"a part between groups":         func() { m.DotMap(z, row(), nil, 1, 4, half(x), half(y0), half(y1), &phi, false) },
			"an automorphism not set":       func() { m.DotMap(z, row(), a, 1, 0, x, y0, y1, &Automorphism{}, false) },
		} {
			if !panics(f) {
				t.Errorf("%s: %s was taken", form, what)
			}
		}
	}
}
