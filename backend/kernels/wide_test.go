package kernels

import (
	"fmt"
	"math/big"
	"math/bits"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
)

// The primes nearest to 2^61, 2^60, 2^50 (both sides), and small ones.
var widePrimes = []struct {
	q     uint64
	shift uint
}{{1<<61 - 1, 0}, {1<<61 - 31, 0}, {1<<60 - 93, 0}, {1<<60 + 33, 0}, {1<<50 + 55, 0}, {1<<50 - 27, 12}, {1<<49 + 69, 12}, {12289, 12}, {3, 12}}

// guarded is a row that starts off any alignment, between words that must stay.
type guarded []uint64

func newGuarded(n int) guarded {
	return slices.Repeat([]uint64{0xdeadbeefdeadbeef}, n+32)[:n+25]
}

func (g guarded) row() []uint64 { n := len(g) - 25; return g[9 : 9+n : 9+n] }

func (g guarded) check(t *testing.T, what string) {
	t.Helper()
	for i, x := range g[:cap(g)] {
		if (i < 9 || i >= len(g)-16) && x != 0xdeadbeefdeadbeef {
			t.Errorf("%s: word %d around the row of %d was written", what, i-9, len(g)-25)
		}
	}
}

// words draws words below a bound, half of them at its edges.
func words(rng *rand.Rand, n int, bound uint64) []uint64 {
	z := newGuarded(n).row()
	for i := range z {
		switch rng.IntN(8) {
		case 0:
			z[i] = bound - 1
		case 1:
			z[i] = 0
		case 2:
			z[i] = min(bound-1, uint64(rng.IntN(3)))
		case 3:
			z[i] = bound - 1 - min(bound-1, uint64(rng.IntN(3)))
		case 4:
			z[i] = (1<<32 - 2 + uint64(rng.IntN(4))) << rng.IntN(31) % bound // carries between halves
		default:
			z[i] = rng.Uint64N(bound)
		}
	}
	return z
}

// mod returns x*y*2^e mod q by division of large integers.
func bigMul(q uint64, e int, x, y uint64) uint64 {
	b := new(big.Int).Mul(new(big.Int).SetUint64(x), new(big.Int).SetUint64(y))
	m := new(big.Int).SetUint64(q)
	if e < 0 {
		inv := new(big.Int).ModInverse(new(big.Int).Lsh(big.NewInt(1), uint(-e)), m)
		b.Mul(b, inv)
	}
	return b.Mod(b, m).Uint64()
}

func testWide(t *testing.T, rng *rand.Rand, q uint64, shift uint, n int) {
	t.Helper()
	m, err := NewWide(q, shift)
	if err != nil {
		t.Fatal(err)
	}
	radix := int(shift) - 64
	addMod := func(x ...uint64) (s uint64) {
		for _, x := range x {
			s = (s%q + x%q) % q
		}
		return s
	}
	x, y, a, b := words(rng, n, q), words(rng, n, q), words(rng, n, q), words(rng, n, q)
	lazy, lazy2, any := words(rng, n, 4*q), words(rng, n, 4*q), words(rng, n, ^uint64(0))
	c := words(rng, 1, q)[0]
	is := func(what string, want func(i int) uint64, run func(z []uint64)) {
		t.Helper()
		g := newGuarded(n)
		z := g.row()
		run(z)
		g.check(t, what)
		for i := range z {
			if w := want(i); z[i] != w {
				t.Fatalf("%s modulo %d, %d residues: number %d is %d, want %d", what, q, n, i, z[i], w)
			}
		}
	}
	is("MulConst", func(i int) uint64 { return bigMul(q, 0, any[i], c) }, func(z []uint64) { m.MulConst(z, any, c) })
	is("MacConst", func(i int) uint64 { return addMod(a[i], bigMul(q, 0, any[i], c)) }, func(z []uint64) { m.MacConst(z, a, any, c) })
	is("SubMul", func(i int) uint64 { return bigMul(q, 0, lazy[i]+4*q-lazy2[i], c) }, func(z []uint64) { m.SubMul(z, lazy, lazy2, c) })
	is("Mul", func(i int) uint64 { return bigMul(q, radix, x[i], y[i]) }, func(z []uint64) { m.Mul(z, x, y) })
	is("Mul in place", func(i int) uint64 { return bigMul(q, radix, x[i], x[i]) }, func(z []uint64) { copy(z, x); m.Mul(z, z, z) })
	is("Mac", func(i int) uint64 { return addMod(a[i], bigMul(q, radix, x[i], y[i])) }, func(z []uint64) { copy(z, a); m.Mac(z, z, x, y) })
	var z [3]guarded
	for k := range z {
		z[k] = newGuarded(n)
	}
	m.Tensor(z[0].row(), z[1].row(), z[2].row(), x, y, a, b)
	for k := range z {
		z[k].check(t, "Tensor")
	}
	for i := range n {
		want := [3]uint64{bigMul(q, 0, x[i], a[i]), addMod(bigMul(q, 0, x[i], b[i]), bigMul(q, 0, y[i], a[i])), bigMul(q, 0, y[i], b[i])}
		for k, w := range want {
			if got := z[k].row()[i]; got != w {
				t.Fatalf("Tensor modulo %d: part %d, number %d is %d, want %d", q, k, i, got, w)
			}
		}
	}
	for _, terms := range []int{1, 2, 3, 7, 8, 9, 23, 24, 25, 64} {
		if !m.DotTerms(terms) {
			if terms < 24 && bits.Len64(q)+int(shift) < 61 {
				t.Errorf("Dot refuses %d terms modulo %d", terms, q)
			}
			continue
		}
		var xs, y0, y1 [][]uint64
		for range terms {
			xs, y0, y1 = append(xs, words(rng, n, q)), append(y0, words(rng, n, q)), append(y1, words(rng, n, q))
		}
		if terms > 6 { // the largest sums
			for k := range xs {
				xs[k][0], y0[k][0], y1[k][0] = q-1, q-1, q-1
			}
		}
		sum := func(y [][]uint64) func(i int) uint64 {
			return func(i int) (s uint64) {
				for k := range xs {
					s = addMod(s, bigMul(q, radix, xs[k][i], y[k][i]))
				}
				return s
			}
		}
		other := make([]uint64, n)
		is(fmt.Sprintf("Dot, %d terms", terms), sum(y0), func(z []uint64) { m.Dot(z, other, xs, y0, y1) })
		is(fmt.Sprintf("Dot, %d terms", terms), sum(y1), func(z []uint64) { m.Dot(other, z, xs, y0, y1) })
	}
	congruent := func(z []uint64, most uint64) {
		for i := range z {
			if z[i] >= most {
				t.Fatalf("modulo %d: %d is not below %d", q, z[i], most)
			}
			z[i] %= q
		}
	}
	for _, k := range []int{1, 2, 5, 8} {
		var rows [][]uint64
		for range k {
			rows = append(rows, words(rng, n, 1<<61))
		}
		w, neg, v := words(rng, k, q), words(rng, 1, q)[0], make([]uint8, n)
		for i := range v {
			v[i] = uint8(rng.Uint32())
		}
		for j := range rows {
			rows[j][0], w[j], v[0] = 1<<61-1, q-1, 255
		}
		is(fmt.Sprintf("Convert of %d", k), func(i int) uint64 {
			s := bigMul(q, -64, uint64(v[i]), neg)
			for j := range rows {
				s = addMod(s, bigMul(q, -64, rows[j][i], w[j]))
			}
			return s
		}, func(z []uint64) { m.Convert(z, rows, w, v, neg); congruent(z, 4*q) })
	}
	for _, s := range []uint64{1 << 51, 1<<61 - 1, q, 3, ^uint64(0)} {
		src := words(rng, n, s)
		src[0], src[1] = s>>1, min(s>>1+1, s-1)
		is("Centre", func(i int) uint64 {
			r := bigMul(q, 0, src[i], c)
			if src[i] > s>>1 {
				r = addMod(r, q-bigMul(q, 0, s%q, c))
			}
			return r
		}, func(z []uint64) { m.Centre(z, src, s, c); congruent(z, 3*q) })
	}
	sums, want := make([]float64, n), make([]float64, n)
	frac := 1 / float64(q)
	is("Prepare", func(i int) uint64 { return bigMul(q, 0, x[i], c) }, func(z []uint64) {
		copy(z, x)
		for i := range sums {
			sums[i] = 0.5 + float64(i)
			want[i] = sums[i] + float64(bigMul(q, 0, x[i], c))*frac
		}
		m.Prepare(z, sums, c, frac)
	})
	if !slices.Equal(sums, want) {
		t.Errorf("Prepare modulo %d: sums differ", q)
	}
}

// TestWide holds every row kernel against large integers, on extreme and random
// words, rows off any alignment, and looks for writes beyond them.
func TestWide(t *testing.T) {
	if !hasDQ() {
		t.Skip("this machine has no AVX-512 DQ")
	}
	rng := rand.New(rand.NewPCG(3, 9))
	for _, p := range widePrimes {
		for _, n := range []int{16, 48, 64, 272} {
			testWide(t, rng, p.q, p.shift, n)
		}
	}
}

func FuzzWide(f *testing.F) {
	f.Add(uint64(1<<60+33), uint64(1))
	f.Fuzz(func(t *testing.T, q, seed uint64) {
		if q &= MaxWide - 1; !hasDQ() || !new(big.Int).SetUint64(q|1).ProbablyPrime(4) || q|1 < 3 {
			t.Skip()
		}
		shift := uint(0)
		if q < 1<<50 {
			shift = 12
		}
		testWide(t, rand.New(rand.NewPCG(seed, 1)), q|1, shift, 16*(1+int(seed%5)))
	})
}

// TestWideRefuses gives the constructors what they must not take.
func TestWideRefuses(t *testing.T) {
	for _, c := range []struct {
		q     uint64
		shift uint
	}{{0, 0}, {1, 0}, {2, 0}, {1 << 60, 0}, {1<<61 + 15, 0}, {1<<62 - 57, 0}, {1<<51 + 21, 12}} {
		if _, err := NewWide(c.q, c.shift); err == nil || !strings.Contains(err.Error(), "AVX-512 DQ") {
			t.Errorf("prime %d with shift %d: %v", c.q, c.shift, err)
		}
	}
	m, err := NewWide(12289, 12)
	if err != nil {
		t.Fatal(err)
	}
	for _, tr := range []Transform{
		{N: 0}, {N: 32, Forward: make([]uint64, 32), Inverse: make([]uint64, 32)},
		{N: 96, Forward: make([]uint64, 96), Inverse: make([]uint64, 96)},
		{N: 64, Forward: make([]uint64, 63), Inverse: make([]uint64, 64)},
	} {
		if err := m.SetTransform(&tr); err == nil {
			t.Errorf("a transform of %d points was taken", tr.N)
		}
	}
	for what, f := range map[string]func(){
		"an odd length": func() { m.Mul(make([]uint64, 17), make([]uint64, 17), make([]uint64, 17)) },
		"no residues":   func() { m.Mul(nil, nil, nil) },
		"a short row":   func() { m.Mul(make([]uint64, 32), make([]uint64, 32), make([]uint64, 16)) },
		"many terms":    func() { m.Dot(make([]uint64, 16), make([]uint64, 16), make([][]uint64, 65), nil, nil) },
		"many rows":     func() { m.Convert(make([]uint64, 16), make([][]uint64, 9), make([]uint64, 9), make([]uint8, 16), 0) },
		"no transform":  func() { m.NTT(make([]uint64, 64), make([]uint64, 64)) },
		"short quotients": func() {
			m.Convert(make([]uint64, 16), [][]uint64{make([]uint64, 16)}, make([]uint64, 1), make([]uint8, 15), 0)
		},
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s was taken", what)
				}
			}()
			f()
		}()
	}
}
