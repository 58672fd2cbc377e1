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
var testPrimes = []uint64{1<<61 - 1, 1<<61 - 31, 1<<60 - 93, 1<<60 + 33, 1<<50 + 55, 1<<50 - 27, 1<<49 + 69, 1<<45 - 229, 12289, 3}

// guarded is a row that starts off any alignment, between words that must stay.
type guarded []uint64

const guard = 0xdeadbeefdeadbeef

func newGuarded(n int) guarded {
	return slices.Repeat([]uint64{guard}, n+32)[:n+25]
}

func (g guarded) row() []uint64 { n := len(g) - 25; return g[9 : 9+n : 9+n] }

func (g guarded) check(t *testing.T, what string) {
	t.Helper()
	for i, x := range g[:cap(g)] {
		if (i < 9 || i >= len(g)-16) && x != guard {
			t.Errorf("%s: word %d around the row of %d was written", what, i-9, len(g)-25)
		}
	}
}

// words draws words below a bound, half of them at its edges or near multiples of q.
func words(rng *rand.Rand, n int, bound, q uint64) []uint64 {
	z := newGuarded(n).row()
	for i := range z {
		switch rng.IntN(8) {
		case 0:
			z[i] = bound - 1
		case 1:
			z[i] = 0
		case 2:
			z[i] = min(bound-1, uint64(rng.IntN(3)))
		case 3: // next to a multiple of q
			z[i] = min(bound-1, q*(rng.Uint64N(bound/q+1))+uint64(rng.IntN(3))-1)
		case 4:
			z[i] = (1<<32 - 2 + uint64(rng.IntN(4))) << rng.IntN(31) % bound // carries between halves
		default:
			z[i] = rng.Uint64N(bound)
		}
	}
	return z
}

// bigMul returns x*y*2^-e mod q by division.
func bigMul(q uint64, e uint, x, y uint64) uint64 {
	hi, lo := bits.Mul64(x, y)
	_, r := bits.Div64(hi%q, lo, q)
	for range e { // halve
		r = (r + q&-(r&1)) / 2
	}
	return r
}

// rowsOf returns kernels for tests of rows, whose transforms are of no use.
func rowsOf(t testing.TB, q uint64, form Form) *Modulus {
	t.Helper()
	p, err := NewPrime(q)
	if err != nil {
		t.Fatal(err)
	}
	one := slices.Repeat([]uint64{1}, minVector)
	r, err := New(p, form, &Transform{N: minVector, Forward: one, Inverse: one, NInv: 1})
	if err != nil {
		t.Fatal(err)
	}
	return &Modulus{p, r}
}

func testRows(t *testing.T, rng *rand.Rand, q uint64, form Form, n int) {
	t.Helper()
	m := rowsOf(t, q, form)
	radix := uint(64)
	if q < MaxNarrow {
		radix = 52
	}
	addMod := func(x ...uint64) (s uint64) {
		for _, x := range x {
			s = (s%q + x%q) % q
		}
		return s
	}
	x, y, a, b := words(rng, n, q, q), words(rng, n, q, q), words(rng, n, q, q), words(rng, n, q, q)
	lazy := words(rng, n, 4*q, q)
	c := words(rng, 1, q, q)[0]
	// is runs a method into a row of its own and, where it may, into its first operand.
	is := func(what string, want func(i int) uint64, first []uint64, run func(z, x []uint64)) {
		t.Helper()
		for _, inPlace := range []bool{false, true} {
			g := newGuarded(n)
			z, x := g.row(), first
			if inPlace {
				if first == nil {
					return
				}
				copy(z, first)
				x = z
			}
			run(z, x)
			g.check(t, what)
			for i := range z {
				if w := want(i); z[i] != w {
					t.Fatalf("%s modulo %d, %s, %d residues, in place %v: number %d is %d, want %d", what, q, form, n, inPlace, i, z[i], w)
				}
			}
		}
	}
	for _, c := range []uint64{c, 0, 1, q - 1} {
		is("AddConst", func(i int) uint64 { return addMod(x[i], c) }, x, func(z, x []uint64) { m.AddConst(z, x, c) })
		is("MulConst", func(i int) uint64 { return bigMul(q, 0, lazy[i], c) }, lazy, func(z, x []uint64) { m.MulConst(z, x, c) })
		is("MacConst", func(i int) uint64 { return addMod(a[i], bigMul(q, 0, lazy[i], c)) }, a, func(z, a []uint64) { m.MacConst(z, a, lazy, c) })
		is("SubMul", func(i int) uint64 { return bigMul(q, 0, x[i]+q-y[i], c) }, x, func(z, x []uint64) { m.SubMul(z, x, y, c) })
	}
	is("Add", func(i int) uint64 { return addMod(x[i], y[i]) }, x, func(z, x []uint64) { m.Add(z, x, y) })
	is("Sub", func(i int) uint64 { return addMod(x[i], q-y[i]) }, x, func(z, x []uint64) { m.Sub(z, x, y) })
	is("Mul", func(i int) uint64 { return bigMul(q, radix, x[i], y[i]) }, y, func(z, y []uint64) { m.Mul(z, x, y) })
	is("Mul of itself", func(i int) uint64 { return bigMul(q, radix, x[i], x[i]) }, x, func(z, x []uint64) { m.Mul(z, x, x) })
	is("Mac", func(i int) uint64 { return addMod(a[i], bigMul(q, radix, x[i], y[i])) }, a, func(z, a []uint64) { m.Mac(z, a, x, y) })

	for g := 0; n>>g<<g == n; g++ {
		short := x[: n>>g : n>>g]
		is(fmt.Sprintf("Repeat %d times", 1<<g), func(i int) uint64 { return short[i>>g] }, nil, func(z, _ []uint64) { m.Repeat(z, short) })
	}

	tensor := func(what string, a0, a1, b0, b1 []uint64, run func(d0, d1, d2 []uint64)) {
		t.Helper()
		var d [3]guarded
		for k := range d {
			d[k] = newGuarded(n)
		}
		run(d[0].row(), d[1].row(), d[2].row())
		for k := range d {
			d[k].check(t, what)
		}
		for i := range n {
			for k, w := range [3]uint64{bigMul(q, 0, a0[i], b0[i]), addMod(bigMul(q, 0, a0[i], b1[i]), bigMul(q, 0, a1[i], b0[i])), bigMul(q, 0, a1[i], b1[i])} {
				if got := d[k].row()[i]; got != w {
					t.Fatalf("%s modulo %d, %s: part %d, number %d is %d, want %d", what, q, form, k, i, got, w)
				}
			}
		}
	}
	tensor("Tensor", x, y, a, b, func(d0, d1, d2 []uint64) { m.Tensor(d0, d1, d2, x, y, a, b) })
	tensor("square", x, y, x, y, func(d0, d1, d2 []uint64) { m.Tensor(d0, d1, d2, x, y, x, y) })
	tensor("Tensor in place", x, y, a, b, func(d0, d1, d2 []uint64) {
		copy(d0, x)
		copy(d1, y)
		m.Tensor(d0, d1, d2, d0, d1, a, b)
	})

	for _, terms := range []int{1, 2, 3, 7, 12, 13, 23, 24, 25, MaxTerms} {
		var xs, y0, y1 [][]uint64
		for range terms {
			xs, y0, y1 = append(xs, words(rng, n, q, q)), append(y0, words(rng, n, q, q)), append(y1, words(rng, n, q, q))
		}
		for k := range xs { // the largest sums
			xs[k][0], y0[k][0], y1[k][0] = q-1, q-1, q-1
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
		is(fmt.Sprintf("Dot, %d terms", terms), sum(y0), nil, func(z, _ []uint64) { m.Dot(z, other, xs, y0, y1) })
		is(fmt.Sprintf("Dot, %d terms", terms), sum(y1), nil, func(z, _ []uint64) { m.Dot(other, z, xs, y0, y1) })
	}

	for _, s := range []uint64{1 << 51, 1<<52 + 1, 1<<61 - 1, q, 2*q - 1, 3*q - 2, 3 * q, 3} {
		src := words(rng, n, s, q)
		src[0], src[1] = s>>1, min(s>>1+1, s-1)
		for _, c := range []uint64{c, 1} {
			is("Centre", func(i int) uint64 {
				r := bigMul(q, 0, src[i], c)
				if src[i] > s>>1 {
					r = addMod(r, q-bigMul(q, 0, s%q, c))
				}
				return r
			}, src, func(z, x []uint64) { m.Centre(z, x, s, c); reduce(t, z, q) })
		}
	}
}

// reduce reduces what must be below 4q.
func reduce(t *testing.T, z []uint64, q uint64) {
	t.Helper()
	for i := range z {
		if z[i] >= 4*q {
			t.Fatalf("modulo %d: %d is not below four times that", q, z[i])
		}
		z[i] %= q
	}
}

// TestRows holds every row kernel of every form against large integers, on extreme and
// random words, rows off any alignment, in place where that is allowed, and looks for
// writes beyond them.
func TestRows(t *testing.T) {
	for _, form := range Supported() {
		t.Run(form.String(), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(3, 9))
			for _, q := range testPrimes {
				for _, n := range []int{32, 96, 288} {
					testRows(t, rng, q, form, n)
				}
			}
		})
	}
}

// FuzzRows does so for primes and words of the fuzzer's choice.
func FuzzRows(f *testing.F) {
	f.Add(uint64(1<<60+33), uint64(1))
	f.Add(uint64(1<<49+69), uint64(2))
	f.Fuzz(func(t *testing.T, q, seed uint64) {
		q = max(q%MaxPrime, 3) | 1
		if !new(big.Int).SetUint64(q).ProbablyPrime(4) {
			t.Skip()
		}
		for _, form := range Supported() {
			testRows(t, rand.New(rand.NewPCG(seed, 1)), q, form, 32*(1+int(seed%5)))
		}
	})
}

// testBasis extends values modulo sources and compares with the definition in large
// integers.
func testBasis(t *testing.T, rng *rand.Rand, src, targets []uint64, form Form, n int) {
	t.Helper()
	moduli := func(q []uint64) (out []*Modulus) {
		for _, q := range q {
			out = append(out, rowsOf(t, q, form))
		}
		return out
	}
	b, err := NewBasis(moduli(src), moduli(targets))
	if err != nil {
		t.Fatal(err)
	}
	all := big.NewInt(1)
	for _, q := range src {
		all.Mul(all, new(big.Int).SetUint64(q))
	}
	half := new(big.Int).Rsh(all, 1)
	// Values and their residues: extremes of the interval, small ones and random ones. At
	// the very edge of the interval either representative will do.
	values := make([]*big.Int, n)
	var rows [][]uint64
	for range src {
		rows = append(rows, newGuarded(n).row())
	}
	for i := range values {
		v := new(big.Int)
		switch i % 8 {
		case 0:
			v.Sub(half, big.NewInt(int64(i/8)))
		case 1:
			v.Add(v.Neg(half), big.NewInt(int64(i/8)))
		case 2:
			v.SetInt64(int64(rng.IntN(5)) - 2)
		case 3: // a multiple of one prime
			v.Mod(v.Mul(new(big.Int).SetUint64(rng.Uint64()), new(big.Int).SetUint64(src[rng.IntN(len(src))])), all)
		default:
			for range len(src) {
				v.Add(v.Lsh(v, 61), new(big.Int).SetUint64(rng.Uint64N(1<<61)))
			}
			v.Mod(v, all)
		}
		if v.Cmp(half) > 0 {
			v.Sub(v, all)
		}
		values[i] = v
		for j, q := range src {
			rows[j][i] = new(big.Int).Mod(v, new(big.Int).SetUint64(q)).Uint64()
		}
	}
	check := func(what string, z []uint64, k int, values []*big.Int) {
		t.Helper()
		q := new(big.Int).SetUint64(targets[k])
		for i, x := range values {
			want := new(big.Int).Mod(x, q).Uint64()
			edge := new(big.Int).Sub(half, new(big.Int).Abs(x))
			if z[i] != want && edge.BitLen() < all.BitLen()-44 {
				other := new(big.Int).Sub(x, all)
				if x.Sign() < 0 {
					other.Add(x, all)
				}
				want = other.Mod(other, q).Uint64()
			}
			if z[i] != want {
				t.Fatalf("%s: value %d of %d primes%s modulo %d is %d, want %d", form, i, len(src), what, targets[k], z[i], want)
			}
		}
	}
	// test converts the values, which rows hold, to one target at a time and to all of
	// them, and checks factor times what comes out.
	test := func(what string, b *Basis, factor uint64, values []*big.Int, rows [][]uint64) {
		t.Helper()
		v := make([]uint8, n+2)[1 : n+1]
		b.Prepare(rows, v)
		times := func(z []uint64, k int) []uint64 {
			reduce(t, z, targets[k])
			p := rowsOf(t, targets[k], form)
			for i := range z {
				z[i] = p.Times(factor%p.Q, z[i])
			}
			return z
		}
		for k := range targets {
			g := newGuarded(n)
			b.Convert([][]uint64{g.row()}, []int{k}, rows, v)
			g.check(t, "Convert")
			check(what, times(g.row(), k), k, values)
		}
		var z [][]uint64
		var to []int
		var guards []guarded
		for k := range targets {
			guards, to = append(guards, newGuarded(n)), append(to, k)
			z = append(z, guards[k].row())
		}
		b.Convert(z, to, rows, v)
		for k := range targets {
			guards[k].check(t, "Convert")
			check(what, times(z[k], k), k, values)
			s := new(big.Int).Mod(all, new(big.Int).SetUint64(targets[k])).Uint64()
			if d := b.Down(k); bigMul(targets[k], 0, d, s) != factor && !slices.Contains(src, targets[k]) {
				t.Errorf("Down(%d)%s is %d", k, what, d)
			}
		}
	}
	again, twice := make([][]uint64, len(src)), make([]*big.Int, n)
	for j := range rows {
		again[j] = newGuarded(n).row()
		copy(again[j], rows[j])
	}
	test("", b, 1, values, rows)
	if len(src) == 1 {
		return
	}
	for i, x := range values {
		y := new(big.Int).Lsh(x, 1)
		switch {
		case y.Cmp(half) > 0:
			y.Sub(y, all)
		case y.CmpAbs(half) > 0:
			y.Add(y, all)
		}
		twice[i] = y
	}
	test(", doubled,", b.Doubled(), 2, twice, again)
}

func TestBasis(t *testing.T) {
	narrow := []uint64{1<<50 - 27, 1<<49 + 69, 1<<45 - 229, 1<<49 - 81, 1<<48 - 59, 1<<47 - 115, 1<<46 - 21, 1<<44 - 17, 1<<43 - 57}
	wide := []uint64{1<<61 - 1, 1<<61 - 31, 1<<60 - 93, 1<<59 - 55, 1<<58 - 27, 1<<57 - 13, 1<<56 - 5, 1<<55 - 55, 1<<54 - 33}
	mixed := []uint64{1<<61 - 1, 1<<50 - 27, 1<<60 - 93, 1<<45 - 229}
	for _, form := range Supported() {
		t.Run(form.String(), func(t *testing.T) {
			rng := rand.New(rand.NewPCG(4, 4))
			for _, c := range [][2][]uint64{
				{narrow[:1], narrow}, {narrow[:2], narrow}, {narrow[:3], narrow}, {narrow[:5], narrow}, {narrow[:8], narrow}, {narrow[:9], narrow},
				{wide[:1], wide}, {wide[:2], wide}, {wide[:4], wide}, {wide[:8], wide}, {wide[:9], wide},
				{narrow[1:4], mixed}, {narrow[1:2], mixed}, {mixed, narrow}, {mixed, wide}, {mixed[2:3], narrow}, {mixed[:3], mixed},
			} {
				testBasis(t, rng, c[0], c[1], form, 96)
			}
		})
	}
}

// TestRefuses gives the constructors and methods what they must not take.
func TestRefuses(t *testing.T) {
	for _, q := range []uint64{0, 1, 2, 1 << 60, 1<<61 + 15, 1<<62 - 57, 1<<64 - 59} {
		if _, err := NewPrime(q); err == nil || !strings.Contains(err.Error(), "odd primes below 2^61") {
			t.Errorf("prime %d (%d bits): %v", q, bits.Len64(q), err)
		}
	}
	p, err := NewPrime(12289)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := New(Prime{}, Portable, &Transform{N: 64, Forward: make([]uint64, 64), Inverse: make([]uint64, 64)}); err == nil {
		t.Error("no prime was taken")
	}
	for _, form := range Supported() {
		for _, tr := range []Transform{
			{N: 0}, {N: 4, Forward: make([]uint64, 4), Inverse: make([]uint64, 4)},
			{N: 96, Forward: make([]uint64, 96), Inverse: make([]uint64, 96)},
			{N: 64, Forward: make([]uint64, 63), Inverse: make([]uint64, 64)},
			{N: 64, Forward: make([]uint64, 64), Inverse: make([]uint64, 128)},
		} {
			if _, err := New(p, form, &tr); err == nil {
				t.Errorf("%s: a transform of %d points was taken", form, tr.N)
			}
		}
		m := rowsOf(t, 12289, form)
		row := func(n int) []uint64 { return make([]uint64, n) }
		rows := func(k, n int) (r [][]uint64) {
			for range k {
				r = append(r, row(n))
			}
			return r
		}
		basis, err := NewBasis([]*Modulus{rowsOf(t, 12289, form), rowsOf(t, 40961, form)}, []*Modulus{m, rowsOf(t, 65537, form)})
		if err != nil {
			t.Fatal(err)
		}
		x := row(256)
		y := row(128)
		bytes := make([]uint8, 128)
		for what, f := range map[string]func(){
			"a length that is no multiple":  func() { m.Mul(row(36), row(36), row(36)) },
			"no residues":                   func() { m.Mul(nil, nil, nil) },
			"a short operand":               func() { m.Mul(row(64), row(64), row(32)) },
			"a long operand":                func() { m.Add(row(64), row(128), row(64)) },
			"a partial overlap":             func() { m.Add(x[:128], x[1:129], y) },
			"an overlap from behind":        func() { m.Sub(x[8:136], y, x[:128]) },
			"an overlap of constants' rows": func() { m.MulConst(x[:128], x[127:255], 3) },
			"an overlap of sums":            func() { m.MacConst(x[:128], y, x[64:192], 3) },
			"an overlap of accumulators":    func() { m.Mac(x[:128], x[64:192], y, y) },
			"an overlap of differences":     func() { m.SubMul(x[64:192], x[:128], y, 3) },
			"an overlap of centres":         func() { m.Centre(x[64:192], x[:128], 5, 3) },
			"an overlap of repetitions":     func() { m.Repeat(x[:128], x[64:128]) },
			"repetitions of nothing":        func() { m.Repeat(x[:128], nil) },
			"three repetitions":             func() { m.Repeat(row(96), y[:32]) },
			"an overlap of results":         func() { m.Tensor(x[:128], x[64:192], row(128), y, y, y, y) },
			"one result for two":            func() { m.Tensor(x[:128], row(128), x[:128], y, y, y, y) },
			"a result among the terms":      func() { m.Dot(y, row(128), [][]uint64{y}, rows(1, 128), rows(1, 128)) },
			"one result for both sums":      func() { m.Dot(y, y, rows(1, 128), rows(1, 128), rows(1, 128)) },
			"too many terms":                func() { m.Dot(row(32), row(32), rows(65, 32), rows(65, 32), rows(65, 32)) },
			"no terms":                      func() { m.Dot(row(32), row(32), nil, nil, nil) },
			"terms without partners":        func() { m.Dot(row(32), row(32), rows(2, 32), rows(2, 32), rows(1, 32)) },
			"a short term":                  func() { m.Dot(row(64), row(64), rows(1, 64), rows(1, 32), rows(1, 64)) },
			"too few sources":               func() { basis.Prepare(rows(1, 128), bytes) },
			"short quotients":               func() { basis.Prepare(rows(2, 128), bytes[:96]) },
			"a source twice":                func() { basis.Prepare([][]uint64{y, y}, bytes) },
			"sources of a strange length":   func() { basis.Prepare(rows(2, 36), bytes[:36]) },
			"a target in a source":          func() { basis.Convert([][]uint64{y}, []int{0}, [][]uint64{y, row(128)}, bytes) },
			"one row for two targets":       func() { basis.Convert([][]uint64{y, y}, []int{0, 1}, rows(2, 128), bytes) },
			"rows without targets":          func() { basis.Convert(rows(2, 128), []int{0}, rows(2, 128), bytes) },
			"a target that is not there":    func() { basis.Convert(rows(1, 128), []int{2}, rows(2, 128), bytes) },
			"targets of another length":     func() { basis.Convert(rows(1, 64), []int{0}, rows(2, 128), bytes) },
			"an automorphism in place":      func() { var a Automorphism; a.Set(128, 256, 5, form); a.Apply(y, y) },
			"an even automorphism":          func() { var a Automorphism; a.Set(128, 256, 4, form) },
			"an automorphism of no order":   func() { var a Automorphism; a.Set(128, 128, 5, form) },
			"an automorphism of 96":         func() { var a Automorphism; a.Set(96, 192, 5, form) },
			"an automorphism not set":       func() { var a Automorphism; a.Apply(row(32), row(32)) },
			"an automorphism of half a row": func() { var a Automorphism; a.Set(128, 256, 5, form); a.Apply(row(64), row(64)) },
		} {
			if !panics(f) {
				t.Errorf("%s: %s was taken", form, what)
			}
		}
	}
	many := slices.Repeat([]*Modulus{rowsOf(t, 12289, Portable)}, 16)
	for _, src := range [][]*Modulus{nil, many} {
		if _, err := NewBasis(src, many[:1]); err == nil {
			t.Errorf("a basis of %d primes was taken", len(src))
		}
	}
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

// FuzzBasis extends from and to primes of the fuzzer's choice.
func FuzzBasis(f *testing.F) {
	f.Add(uint8(3), uint8(5), uint64(1))
	f.Add(uint8(9), uint8(2), uint64(2))
	f.Fuzz(func(t *testing.T, sources, targets uint8, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 2))
		used := map[uint64]bool{}
		primes := func(n int) (out []uint64) {
			for len(out) < n {
				q := rng.Uint64N(1<<(20+rng.IntN(42))) | 1
				if !used[q] && q > 1<<19 && new(big.Int).SetUint64(q).ProbablyPrime(4) {
					used[q] = true
					out = append(out, q)
				}
			}
			return out
		}
		src, to := primes(1+int(sources)%maxSources), primes(1+int(targets)%6)
		for _, form := range Supported() {
			testBasis(t, rng, src, to, form, 32*(1+int(seed%4)))
		}
	})
}
