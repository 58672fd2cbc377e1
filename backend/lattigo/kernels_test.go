package lattigo

import (
	"fmt"
	"math/bits"
	"math/rand/v2"
	"os"
	"slices"
	"testing"
	"time"
	"unsafe"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/tuneinsight/lattigo/v5/ring"
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

// TestTransforms holds the transforms and automorphisms of every form against those
// of stock Lattigo, bit for bit.
func TestTransforms(t *testing.T) {
	for _, logN := range []int{4, 5, 6, 7, 8, 9, 11, 12, 13, 16} {
		if logN > 13 && testing.Short() {
			continue
		}
		for _, r := range []ir.Ring{ir.RingStandard, ir.RingReal} {
			p, err := ir.NewParams("transforms", logN, r, ir.SecretTernary, []int{61, 60, 55, 51, 50, 49, 40, 30, 28}, []int{61, 45}, 30)
			if err != nil {
				t.Fatal(err)
			}
			stock := must[*ring.Ring](t)(ring.NewRingFromType(p.N(), append(slices.Clone(p.Q), p.P...), ringType(r)))
			for _, form := range kernels.Supported() {
				t.Run(fmt.Sprintf("N%d/%s/%s", logN, r, form), func(t *testing.T) {
					own := must[*rings](t)(newRingsWith(p, form))
					for i, m := range own.mods {
						want := form
						if logN < 6 {
							want = kernels.Portable
						} else if m.Q >= kernels.MaxNarrow {
							want = min(form, kernels.DQ)
						}
						if m.Form() != want {
							t.Errorf("prime %d is served by %s, want %s", m.Q, m.Form(), want)
						}
						testTransform(t, rand.New(rand.NewPCG(7, m.Q)), m, stock.SubRings[i])
					}
					testAutomorphisms(t, own, stock)
				})
			}
		}
	}
}

func testTransform(t *testing.T, rng *rand.Rand, m *modulus, stock *ring.SubRing) {
	t.Helper()
	n := stock.N
	same := func(what string, got, want []uint64) {
		t.Helper()
		for i := range got {
			if got[i] != want[i] {
				t.Fatalf("%s modulo %d (%d bits): residue %d is %d, want %d", what, m.Q, bits.Len64(m.Q), i, got[i], want[i])
			}
		}
	}
	all := make([]uint64, n)
	for i := range all {
		all[i] = m.Q - 1
	}
	for _, x := range [][]uint64{edgeRow(rng, n, m.Q), edgeRow(rng, n, m.Q), make([]uint64, n), all} {
		z, want := make([]uint64, n), make([]uint64, n)
		stock.NTT(x, want)
		m.NTT(z, x)
		same("transform", z, want)
		lazy := slices.Clone(x)
		for i := range lazy {
			lazy[i] += m.Q * rng.Uint64N(4)
		}
		m.NTT(lazy, lazy)
		same("transform of what is not reduced, in place", lazy, want)
		stock.INTT(x, want)
		m.INTT(z, x)
		same("inverse", z, want)
		y := slices.Clone(x)
		m.INTT(y, y)
		same("inverse in place", y, want)
	}
	if shortest := n >> kernels.Gaps(n); shortest != min(n, backend.ShortestTransform) {
		t.Errorf("the shortest transform of %d points takes %d, where prices say %d", n, shortest, backend.ShortestTransform)
	}
	for g := 1; g <= kernels.Gaps(n); g++ {
		x, want := make([]uint64, n), make([]uint64, n)
		short := edgeRow(rng, n>>g, m.Q)
		for i, v := range short {
			x[i<<g] = v
		}
		stock.NTT(x, want)
		m.NTT(short, short)
		z := make([]uint64, n)
		m.Repeat(z, short)
		same(fmt.Sprintf("transform of a polynomial in X^%d", 1<<g), z, want)
	}
	for what, f := range map[string]func(){
		"a row too short": func() { m.NTT(make([]uint64, 4), make([]uint64, 4)) },
		"a row too long":  func() { m.NTT(make([]uint64, 2*n), make([]uint64, 2*n)) },
		"no power of two": func() { m.NTT(make([]uint64, n-n/4), make([]uint64, n-n/4)) },
		"half a row":      func() { m.INTT(make([]uint64, n/2), make([]uint64, n/2)) },
		"an overlap":      func() { x := make([]uint64, 2*n); m.NTT(x[:n], x[1:n+1]) },
	} {
		if !panics(f) {
			t.Errorf("%s was transformed", what)
		}
	}
}

// FuzzTransform does the same for primes, degrees and coefficients of the fuzzer's
// choice.
func FuzzTransform(f *testing.F) {
	f.Add(uint8(6), uint8(50), false, uint64(1))
	f.Add(uint8(7), uint8(61), true, uint64(2))
	f.Add(uint8(4), uint8(30), true, uint64(3))
	f.Fuzz(func(t *testing.T, logN, bits uint8, real bool, seed uint64) {
		kind, r := ring.Standard, ir.RingStandard
		if real {
			kind, r = ring.ConjugateInvariant, ir.RingReal
		}
		n, size := 4+int(logN)%8, 26+int(bits)%36
		p, err := ir.NewParams("fuzz", n, r, ir.SecretTernary, []int{size}, []int{26 + int(seed%36)}, 20)
		if err != nil {
			t.Skip(err) // there are not so many primes of this size
		}
		stock := must[*ring.Ring](t)(ring.NewRingFromType(p.N(), append(slices.Clone(p.Q), p.P...), kind))
		for _, form := range kernels.Supported() {
			own := must[*rings](t)(newRingsWith(p, form))
			for i, m := range own.mods {
				testTransform(t, rand.New(rand.NewPCG(seed, m.Q)), m, stock.SubRings[i])
			}
			testAutomorphisms(t, own, stock, 2*seed+1)
		}
	})
}

func panics(f func()) (did bool) {
	defer func() { did = recover() != nil }()
	f()
	return false
}

func testAutomorphisms(t *testing.T, own *rings, stock *ring.Ring, more ...uint64) {
	t.Helper()
	p := own.p
	elements := []uint64{1, rotation(p, 1), rotation(p, 2), rotation(p, 3), rotation(p, 5), rotation(p, -1), rotation(p, p.Slots()/2)}
	if p.Ring == ir.RingStandard {
		elements = append(elements, conjugation(p), 3)
		for _, g := range more {
			elements = append(elements, g&(order(p)-1))
		}
	}
	x := edgeRow(rand.New(rand.NewPCG(3, 3)), own.n, 1<<60)
	level0 := stock.AtLevel(0)
	var a kernels.Automorphism
	for _, g := range elements {
		z, want := make([]uint64, own.n), make([]uint64, own.n)
		own.automorphism(&a, g)
		a.Apply(z, x)
		level0.AutomorphismNTT(ring.Poly{Coeffs: [][]uint64{x}}, g, ring.Poly{Coeffs: [][]uint64{want}})
		if !slices.Equal(z, want) {
			t.Errorf("automorphism by %d", g)
		}
		if p.Ring == ir.RingReal { // the inverse of X is its conjugate, and so the same
			own.automorphism(&a, order(p)-g)
			if a.Apply(z, x); !slices.Equal(z, want) {
				t.Errorf("automorphism by -%d", g)
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
			for name, f := range map[string]func(z, x []uint64){"forward": r.mods[0].NTT, "inverse": r.mods[0].INTT} {
				b.Run(fmt.Sprintf("N%d/%s/%s", logN, form, name), func(b *testing.B) {
					for b.Loop() {
						f(x, x)
					}
				})
			}
		}
	}
}

// heapSlabs hands out slabs.
func heapSlabs(p *ir.Params) func(n int) ([][]byte, error) {
	return func(n int) ([][]byte, error) {
		buf := make([]byte, n*p.SlabBytes()+64)
		buf = buf[-uintptr(unsafe.Pointer(&buf[0]))%64:]
		return slices.Collect(slices.Chunk(buf[:n*p.SlabBytes()], p.SlabBytes())), nil
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
			clock := func() float64 { return time.Since(began).Seconds() }
			got := must[[]KernelTime](t)(CompareKernels(p, 3, clock, heapSlabs(p), nil, 1, 2, 9))
			keys := map[string]Key{}
			for _, step := range []string{"rotation", "hoisted rotation", "4 hoisted rotations", "multiply, relinearise, rescale"} {
				if keys[step] = KeyWhole; kernels.VectorSeeds() {
					keys[step+", key streamed"] = KeyStreamed
				}
			}
			if want := 3 + 3*(2+len(keys)) + 1; len(got) != want {
				t.Errorf("%d comparisons, want %d", len(got), want)
			}
			form := kernels.Supported()
			best := form[len(form)-1]
			if best == kernels.IFMA && bits >= 50 {
				best = kernels.DQ
			}
			for _, k := range got {
				if k.Key != keys[k.Step] || (k.Need.Uniform > 0) != (k.Key == KeyStreamed) {
					t.Errorf("%s: the key is %q, %d residues are made", k.Step, k.Key, k.Need.Uniform)
				}
				ours, stock := k.Medians()
				if len(k.Ours) != 3 || len(k.Stock) != 3 || !(ours > 0 && stock > 0 && k.Ratio() == stock/ours) || os.Getenv(kernels.Env) == "" && k.Form != best {
					t.Errorf("%+v", k)
				}
			}
		}
	}
}
