package lattigo

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
)

// edgeRow fills a row with residues below bound, the extremes among them.
func edgeRow(rng *rand.Rand, n int, bound uint64) []uint64 {
	z := make([]uint64, n)
	for i := range z {
		switch rng.IntN(8) {
		case 0:
			z[i] = bound - 1
		case 1:
			z[i] = 0
		default:
			z[i] = rng.Uint64N(bound)
		}
	}
	return z
}

// TestVectorKernels holds every vector kernel against its portable twin, which
// is Lattigo's transform or plain Go, bit for bit.
func TestVectorKernels(t *testing.T) {
	forms := kernels.Supported()[1:]
	if len(forms) == 0 {
		t.Skip("this machine has no AVX-512: the portable kernels are all there is")
	}
	for _, logN := range []int{6, 7, 8, 9, 11, 12, 13} {
		for _, r := range []ir.Ring{ir.RingStandard, ir.RingReal} {
			for _, c := range []struct {
				name string
				q, p []int
			}{
				{"narrow", []int{50, 49, 40, 28, 22}, []int{50, 45, 30}},
				{"wide", []int{61, 60, 55, 51}, []int{61, 60}},
				{"mixed", []int{60, 45, 49, 55, 30}, []int{60, 49, 55}},
			} {
				p, err := ir.NewParams("kernels", logN, r, ir.SecretTernary, c.q, c.p, 30)
				if err != nil {
					t.Fatal(err)
				}
				slow := must[*rings](t)(newRingsWith(p, kernels.Portable))
				for _, form := range forms {
					t.Run(fmt.Sprintf("N%d/%s/%s/%s", logN, r, c.name, form), func(t *testing.T) {
						testForm(t, p, must[*rings](t)(newRingsWith(p, form)), slow, form)
					})
				}
			}
		}
	}
}

func testForm(t *testing.T, p *ir.Params, fast, slow *rings, form kernels.Form) {
	rng := rand.New(rand.NewPCG(7, uint64(p.LogN)))
	for i := range fast.mods {
		f, s := fast.mods[i], slow.mods[i]
		if !f.any || f.vec != (form == kernels.IFMA && f.q < 1<<50) || f.wide == nil || s.any || s.vec || s.wide != nil {
			t.Fatalf("prime %d: the wrong kernels", f.q)
		}
		testModulus(t, rng, f, s, p.N())
	}
	testBases(t, rng, fast, slow)
	z0, z1, x := make([]uint64, p.N()), make([]uint64, p.N()), edgeRow(rng, p.N(), 1<<60)
	elements := []uint64{rotation(p, 1), rotation(p, 2), rotation(p, 3), rotation(p, 5), rotation(p, -1), rotation(p, p.Slots()/2)}
	if p.Ring == ir.RingStandard {
		elements = append(elements, conjugation(p))
	}
	for _, g := range elements {
		from := make([]uint32, p.N()/8)
		var l lanes
		fast.automorphism(from, &l, g)
		fast.permuteRow(z0, x, from, &l)
		slow.permuteRow(z1, x, from, &l)
		if !slices.Equal(z0, z1) {
			t.Errorf("permutation by %d", g)
		}
	}
}

func testModulus(t *testing.T, rng *rand.Rand, f, s *modulus, n int) {
	t.Helper()
	q := f.q
	row := func() []uint64 { return edgeRow(rng, n, q) }
	c := rng.Uint64N(q)
	x, y, a, b := row(), row(), row(), row()
	var terms, y0, y1 [][]uint64
	for range 3 {
		terms, y0, y1 = append(terms, row()), append(y0, row()), append(y1, row())
	}
	lazy := edgeRow(rng, n, 4*q)
	for name, run := range map[string]func(m *modulus, z ...[]uint64){
		"add":      func(m *modulus, z ...[]uint64) { m.addRow(z[0], x, y) },
		"sub":      func(m *modulus, z ...[]uint64) { m.subRow(z[0], x, y) },
		"mulConst": func(m *modulus, z ...[]uint64) { m.mulScalarRow(z[0], x, c) },
		"macConst": func(m *modulus, z ...[]uint64) { m.macScalarRow(z[0], a, x, c) },
		"subMul":   func(m *modulus, z ...[]uint64) { m.subMulRow(z[0], x, y, c) },
		"mul":      func(m *modulus, z ...[]uint64) { m.mulRow(z[0], x, y) },
		"mac":      func(m *modulus, z ...[]uint64) { m.macRow(z[0], a, x, y) },
		"tensor":   func(m *modulus, z ...[]uint64) { m.tensorRow(z[0], z[1], z[2], x, y, a, b) },
		"square":   func(m *modulus, z ...[]uint64) { m.squareRow(z[0], z[1], z[2], x, y) },
		"dot":      func(m *modulus, z ...[]uint64) { m.dotRows(z[0], z[1], terms, y0, y1) },
		"ntt":      func(m *modulus, z ...[]uint64) { m.ntt(z[0], lazy); m.ntt(z[1], x); copy(z[2], y); m.ntt(z[2], z[2]) },
		"intt":     func(m *modulus, z ...[]uint64) { m.intt(z[0], x); copy(z[1], y); m.intt(z[1], z[1]) },
	} {
		got, want := makeRows(3, n), makeRows(3, n)
		run(f, got...)
		run(s, want...)
		for k := range got {
			if !slices.Equal(got[k], want[k]) {
				i := 0
				for got[k][i] == want[k][i] {
					i++
				}
				t.Errorf("%s modulo %d (%d bits): row %d, residue %d is %d, want %d", name, q, bits.Len64(q), k, i, got[k][i], want[k][i])
				break
			}
		}
	}
	// Centring and a product in one pass, from a power of two and from other primes.
	for _, from := range []uint64{fixedMod, 1<<49 + 9, 12345, q} {
		src := edgeRow(rng, n, from)
		src[1], src[2] = from>>1, from>>1+1
		got, want := make([]uint64, n), make([]uint64, n)
		s.centredRow(want, src, from)
		for i := range want {
			want[i] = s.mul(want[i]%q, c)
		}
		for _, m := range []*modulus{f, s} {
			if m.centredFormRow(got, src, from, c); slices.Max(got) >= 4*q {
				t.Errorf("modulo %d: a residue is not below 4 times that", q)
			}
			for i := range got {
				if got[i]%q != want[i] {
					t.Fatalf("centring from %d modulo %d: residue %d is %d, want %d", from, q, i, got[i]%q, want[i])
				}
			}
		}
	}
	z := make([]uint64, n)
	f.ntt(z, x)
	f.intt(z, z)
	if !slices.Equal(z, x) {
		t.Errorf("the inverse transform modulo %d does not invert", q)
	}
}

func testBases(t *testing.T, rng *rand.Rand, f, s *rings) {
	t.Helper()
	pairs := [][2]*basis{{f.pToQ, s.pToQ}}
	for g := range f.digit {
		for k := range f.digit[g] {
			pairs = append(pairs, [2]*basis{f.digit[g][k], s.digit[g][k]})
		}
	}
	for _, b := range pairs {
		run := func(r *rings, b *basis, src [][]uint64) (out [][]uint64) {
			rows := makeRows(len(src), r.n)
			for i := range src {
				copy(rows[i], src[i])
			}
			v := make([]uint8, r.n)
			b.prepare(rows, v)
			for target := range b.w {
				z := make([]uint64, r.n)
				b.convert(z, target, r.mods[target], rows, v)
				for i := range z {
					if z[i] >= 4*r.mods[target].q {
						t.Fatalf("residue %d is not below 4*%d", z[i], r.mods[target].q)
					}
					z[i] %= r.mods[target].q
				}
				out = append(out, z)
			}
			for from := 0; from+maxGroup <= len(b.w); from++ { // the same in groups
				z := makeRows(maxGroup, r.n)
				b.convertGroup(z, r.all[from:from+maxGroup], r.mods[from:from+maxGroup], rows, v)
				for k, z := range z {
					for i := range z {
						z[i] %= r.mods[from+k].q
					}
					if !slices.Equal(z, out[from+k]) {
						t.Errorf("conversion to a group of primes from %d on differs for number %d", from, k)
					}
				}
			}
			return out
		}
		var src [][]uint64
		for _, m := range b[0].src {
			src = append(src, edgeRow(rng, f.n, m.q))
		}
		got, want := run(f, b[0], src), run(s, b[1], src)
		for k := range got {
			if !slices.Equal(got[k], want[k]) {
				t.Errorf("conversion from %d primes to prime %d differs", len(src), k)
			}
		}
	}
}

func BenchmarkTransform(b *testing.B) {
	for _, logN := range []int{13, 15, 16} {
		p, err := ir.NewParams("transform", logN, ir.RingReal, ir.SecretTernary, []int{45}, []int{60}, 30)
		if err != nil {
			b.Fatal(err)
		}
		for _, form := range kernels.Supported() {
			r := must[*rings](b)(newRingsWith(p, form))
			x := make([]uint64, p.N())
			for name, f := range map[string]func(z, x []uint64){"forward": r.mods[0].ntt, "inverse": r.mods[0].intt} {
				b.Run(fmt.Sprintf("N%d/%s/%s", logN, form, name), func(b *testing.B) {
					for b.Loop() {
						f(x, x)
					}
				})
			}
		}
	}
}

// TestCompareKernels runs the comparison once: every figure must be there.
func TestCompareKernels(t *testing.T) {
	began := time.Now()
	for _, r := range []ir.Ring{ir.RingStandard, ir.RingReal} {
		for _, bits := range []int{36, 55} {
			p, err := ir.NewParams("compare", 9, r, ir.SecretTernary, []int{bits + 3, bits, bits, bits}, []int{bits + 4}, 36)
			if err != nil {
				t.Fatal(err)
			}
			got := must[[]KernelTime](t)(CompareKernels(p, 3, func() float64 { return time.Since(began).Seconds() }, 1, 2, 9))
			if want := 3 + 3*5 + 1; len(got) != want {
				t.Errorf("%d comparisons, want %d", len(got), want)
			}
			form := kernels.Supported()
			best := form[len(form)-1]
			if best == kernels.IFMA && bits >= 50 {
				best = kernels.DQ
			}
			for _, k := range got {
				ours, stock := k.Medians()
				if len(k.Ours) != 3 || len(k.Stock) != 3 || !(ours > 0 && stock > 0 && k.Ratio() == stock/ours) || os.Getenv(kernels.Env) == "" && k.Form != best.String() {
					t.Errorf("%+v", k)
				}
			}
		}
	}
}
