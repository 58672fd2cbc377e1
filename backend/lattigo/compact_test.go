package lattigo

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// What Make computes from the source of a plaintext is what encoding gives, bit for bit: real and
// complex slots, small and huge scales, both rings, primes of both kernels.
func TestCompact(t *testing.T) {
	for _, ring := range []ir.Ring{ir.RingReal, ir.RingStandard} {
		p, err := ir.NewParams("compact", 7, ring, ir.SecretTernary, []int{52, 45, 58}, []int{49, 53}, 45)
		if err != nil {
			t.Fatal(err)
		}
		p.Insecure = true
		e := must[*engine](t)(openEngine(p))
		r := rand.New(rand.NewPCG(1, 2))
		var values []ir.SlotData
		for _, size := range []float64{0, 1e-3, 1, 30} {
			d := ir.SlotData{Period: p.Slots()}
			for i := range d.Period {
				d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, size*r.NormFloat64())
			}
			values = append(values, d, ir.SlotData{Period: 4, Index: []int32{1}, Value: []float64{size}})
		}
		if ring == ir.RingStandard {
			values = append(values, ir.SlotData{Period: p.Slots(), DFT: &ir.Diagonal{From: 1, To: 4, Offset: 2, Factor: 0.3}})
		}
		for level := range 3 {
			for _, kind := range []ir.Kind{ir.PlainKind, ir.PlainQPKind} {
				for _, scale := range []int{1, 20, 45, 90} {
					if scale > 40*(level+1) {
						continue
					}
					for i := range values {
						ty := ir.Type{Kind: kind, Level: level, Scale: ir.ScaleTwo(scale), Complex: values[i].DFT != nil}
						want, got := conformance.Slabs(e, ty), conformance.Slabs(e, ty)
						a, b := must[*operand](t)(e.bind(ty, want)), must[*operand](t)(e.bind(ty, got))
						if err := e.Encode(&values[i], a); err != nil {
							t.Fatal(err)
						}
						source := conformance.Slabs(e, ir.Type{Kind: ir.PlainKind})[0]
						if err := e.EncodeCompact(&values[i], ty, source); err != nil {
							t.Fatal(err)
						}
						before := slices.Clone(source)
						for _, some := range halves(r, len(got)) {
							if err := e.Make(b, source, some); err != nil {
								t.Fatal(err)
							}
						}
						if !slices.Equal(source, before) {
							t.Fatal("the source was changed")
						}
						for k := range a.rows {
							if !slices.Equal(a.rows[k], b.rows[k]) {
								t.Fatalf("%s ring, %s at level %d, scale 2^%d, values %d: limb %d differs", ring, kind, level, scale, i, k)
							}
						}
					}
				}
			}
		}
		ty := ir.Type{Kind: ir.PlainKind, Scale: ir.ScaleTwo(45)}
		huge := ir.SlotData{Period: 1, Index: []int32{0}, Value: []float64{1e9}}
		slab := conformance.Slabs(e, ty)
		if err := e.EncodeCompact(&huge, ty, slab[0]); err == nil {
			t.Error("a value beyond the modulus was encoded")
		}
		ct := ir.Type{Kind: ir.CipherKind}
		if err := e.Make(must[*operand](t)(e.bind(ct, conformance.Slabs(e, ct))), slab[0], nil); err == nil {
			t.Error("a ciphertext was made")
		}
		o := must[*operand](t)(e.bind(ty, [][]byte{nil}))
		if err := e.Make(o, slab[0], []int32{0}); err == nil {
			t.Error("a slab without room was made")
		}
		o = must[*operand](t)(e.bind(ty, slab))
		for _, i := range []int32{-1, 1} {
			if err := e.Make(o, slab[0], []int32{i}); err == nil {
				t.Errorf("slab %d of 1 was made", i)
			}
		}
		if err := e.Make(o, slab[0][8:], []int32{0}); err == nil {
			t.Error("half a source was accepted")
		}
	}
}

// halves shares the slabs of an object out over two makes.
func halves(r *rand.Rand, n int) (out [2][]int32) {
	for i := range int32(n) {
		k := r.IntN(2)
		out[k] = append(out[k], i)
	}
	return out
}

// The transforms of fewer points, which slots that repeat get by with, give what
// the full one gives.
func TestShortTransforms(t *testing.T) {
	for _, ring := range []ir.Ring{ir.RingReal, ir.RingStandard} {
		p, err := ir.NewParams("compact", 12, ring, ir.SecretTernary, []int{47, 45, 46}, []int{49, 48}, 45)
		if err != nil {
			t.Fatal(err)
		}
		p.Insecure = true
		e := must[*engine](t)(openEngine(p))
		r := rand.New(rand.NewPCG(1, 2))
		for period := p.Slots(); period > 0; period /= 2 {
			d := ir.SlotData{Period: period}
			for i := range d.Period {
				d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, r.NormFloat64())
			}
			ty := ir.Type{Kind: ir.PlainQPKind, Level: 2, Scale: ir.ScaleTwo(45)}
			a := must[*operand](t)(e.bind(ty, conformance.Slabs(e, ty)))
			if err := e.Encode(&d, a); err != nil {
				t.Fatal(err)
			}
			s := e.take()
			c, _, err := e.coefs(s, &d, ty)
			if err != nil {
				t.Fatal(err)
			}
			x := make([]uint64, len(c))
			fixed(x, c)
			for i, row := range a.rows {
				m := e.mod(i, 2)
				z := make([]uint64, len(row))
				m.Centre(z, x, fixedMod, 1)
				m.NTT(z, z)
				m.MulConst(z, z, m.Montgomery(1))
				if !slices.Equal(z, row) {
					t.Errorf("%s period %d limb %d differs", ring, period, i)
				}
			}
			e.give(s)
		}
	}
}

func BenchmarkExpand(b *testing.B) {
	p, err := ir.NewParams("compact", 16, ir.RingStandard, ir.SecretH192, []int{49, 45, 45, 45, 45}, []int{49, 49, 49, 49, 49, 49}, 45)
	if err != nil {
		b.Fatal(err)
	}
	e, err := openEngine(p)
	if err != nil {
		b.Fatal(err)
	}
	d := ir.SlotData{Period: p.Slots()}
	for i := range d.Period {
		d.Index, d.Value = append(d.Index, int32(i)), append(d.Value, 1/float64(i+1))
	}
	for _, level := range []int{2, 4} {
		ty := ir.Type{Kind: ir.PlainQPKind, Level: level, Scale: ir.ScaleTwo(45)}
		slabs := conformance.Slabs(e, ty)
		source := conformance.Slabs(e, ir.Type{Kind: ir.PlainKind})[0]
		o, err := e.bind(ty, slabs)
		if err != nil {
			b.Fatal(err)
		}
		var all []int32
		for i := range slabs {
			all = append(all, int32(i))
		}
		name := fmt.Sprintf("N=2^%d/slabs=%d", p.LogN, len(slabs))
		b.Run("encode/"+name, func(b *testing.B) {
			for b.Loop() {
				if err := e.Encode(&d, o); err != nil {
					b.Fatal(err)
				}
			}
		})
		b.Run("compact/"+name, func(b *testing.B) {
			for b.Loop() {
				if err := e.EncodeCompact(&d, ty, source); err != nil {
					b.Fatal(err)
				}
			}
		})
		if err := e.EncodeCompact(&d, ty, source); err != nil {
			b.Fatal(err)
		}
		b.Run("make/"+name, func(b *testing.B) {
			for b.Loop() {
				if err := e.Make(o, source, all); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(1e3*b.Elapsed().Seconds()/float64(b.N*len(all)), "ms/slab")
		})
	}
}

// BenchmarkMakeKey makes the uniform halves of a key.
func BenchmarkMakeKey(b *testing.B) {
	p, err := ir.NewParams("compact", 16, ir.RingStandard, ir.SecretH192, []int{49, 45, 45, 45, 45}, []int{49, 49}, 45)
	if err != nil {
		b.Fatal(err)
	}
	e, err := openEngine(p)
	if err != nil {
		b.Fatal(err)
	}
	ty := ir.Type{Kind: ir.KeyKind, Level: 4}
	o, err := e.bind(ty, conformance.Slabs(e, ty))
	if err != nil {
		b.Fatal(err)
	}
	var all []int32
	for i := range o.rows {
		if i/o.stride%2 == 1 {
			all = append(all, int32(i))
		}
	}
	seed := newSeed()
	b.Run(fmt.Sprintf("N=2^%d/slabs=%d", p.LogN, len(all)), func(b *testing.B) {
		for b.Loop() {
			if err := e.Make(o, seed[:], all); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(1e3*b.Elapsed().Seconds()/float64(b.N*len(all)), "ms/slab")
	})
}

// What Make computes of the uniform halves of a key is the key, bit for bit, at its
// own level and cut to lower ones.
func TestCompactKeys(t *testing.T) {
	p, err := ir.NewParams("compact", 7, ir.RingStandard, ir.SecretTernary, []int{52, 45, 45, 45, 58}, []int{49, 53}, 45)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	e := must[*engine](t)(openEngine(p))
	r := rand.New(rand.NewPCG(3, 4))
	sk := must[*SecretKey](t)(NewSecretKey(p, AllowInsecure()))
	specs := []KeySpec{{ir.KeySparse, 0}, {ir.KeyDense, 4}, {ir.KeyConj, 3}, {ir.KeyRelin, 4}, {5, 2}}
	path := filepath.Join(t.TempDir(), "k.hevk")
	if err := CreateKeySet(path, sk, p, specs, nil, AllowInsecure()); err != nil {
		t.Fatal(err)
	}
	set := must[*KeySet](t)(OpenKeySet(path))
	defer set.Close()
	for _, s := range specs {
		for level := range s.Level + 1 {
			s.Level = level
			ty := ir.Type{Kind: keyKind(s), Level: level}
			want, got := conformance.Slabs(e, ty), conformance.Slabs(e, ty)
			if err := set.Expand(s, want); err != nil {
				t.Fatal(err)
			}
			o := must[*operand](t)(e.bind(ty, got))
			some, seed := slices.Clone(got), make([]byte, SeedBytes)
			var uniform []int32
			for i := range some {
				if i/o.stride%2 == 1 {
					some[i], uniform = nil, append(uniform, int32(i))
				}
			}
			if err := set.Parts(s, some, seed); err != nil {
				t.Fatal(err)
			}
			if s.Rot == ir.KeySparse {
				if err := e.Make(o, seed, uniform); err == nil {
					t.Errorf("%s was made from a seed", s)
				}
				continue
			}
			if err := e.Make(o, seed, []int32{0}); err == nil {
				t.Errorf("%s: a half that is not uniform was made", s)
			}
			r.Shuffle(len(uniform), func(i, j int) { uniform[i], uniform[j] = uniform[j], uniform[i] })
			for _, i := range uniform {
				if err := e.Make(o, seed, []int32{i}); err != nil {
					t.Fatal(err)
				}
			}
			for i := range want {
				if !slices.Equal(got[i], want[i]) {
					t.Fatalf("%s: limb %d of %d differs", s, i, len(want))
				}
			}
		}
	}
	slabs := conformance.Slabs(e, ir.Type{Kind: ir.KeyKind, Level: 2})
	if err := set.Parts(KeySpec{5, 2}, slabs, make([]byte, SeedBytes-1)); err == nil {
		t.Error("a seed was written where there is no room for it")
	}
	for _, i := range []int{0, 2 * (2 + 1 + 2)} {
		if i < len(slabs) {
			some := slices.Clone(slabs)
			some[i] = nil
			if err := set.Parts(KeySpec{5, 2}, some, nil); err == nil {
				t.Errorf("a key without room for slab %d was written", i)
			}
		}
	}
}

// Keys are streamed from their seeds alone, and from seeds that this version knows; what
// is refused leaves a key that is read whole.
func TestStreamRefuses(t *testing.T) {
	p, err := ir.NewParams("stream", 6, ir.RingStandard, ir.SecretTernary, []int{40, 35}, []int{41}, 35)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	e, other := must[*engine](t)(openEngine(p)), must[*engine](t)(openEngine(p))
	bind := func(e *engine, k ir.Kind) *operand {
		ty := ir.Type{Kind: k, Level: 1, Scale: ir.ScaleTwo(35)}
		return must[*operand](t)(e.bind(ty, conformance.Slabs(e, ty)))
	}
	seed := newSeed()
	later := seed
	later[keyBytes] = byte(kernels.Draws)
	key := bind(e, ir.KeyKind)
	for _, c := range []struct {
		what string
		key  backend.Operand
		seed []byte
		want string
	}{
		{"a ciphertext", bind(e, ir.CipherKind), seed[:], "has no source"},
		{"a key to the ephemeral secret", bind(e, ir.SparseKeyKind), seed[:], "has no source"},
		{"a plaintext with a seed", bind(e, ir.PlainQPKind), seed[:], "the source of a plaintext has 33 bytes"},
		{"a plaintext with a source between words", bind(e, ir.PlainKind), make([]byte, e.SlabBytes()+8)[1:][:e.SlabBytes()], "not aligned"},
		{"a key of another engine", bind(other, ir.KeyKind), seed[:], "another engine"},
		{"no operand", nil, seed[:], ""},
		{"no seed", key, nil, "seed of 0 bytes, want 33"},
		{"a seed that does not say how residues are drawn", key, seed[:keyBytes], "seed of 32 bytes, want 33"},
		{"a long seed", key, append(seed[:], 0), "seed of 34 bytes, want 33"},
		{"a draw of later versions", key, later[:], "make keys and tier again"},
	} {
		err := e.Stream(c.key, c.seed)
		wantError(t, c.what, err, c.want)
		if o, ok := c.key.(*operand); ok && o.streams {
			t.Errorf("%s is streamed", c.what)
		}
	}
	if err := e.Stream(key, seed[:]); err != nil || !key.streams || key.seed != seed {
		t.Errorf("a key is not streamed: %v", err)
	}
	if err := e.Rebind(key, key.t, conformance.Slabs(e, key.t)); err != nil || key.streams {
		t.Errorf("a key that was bound again is streamed still, or %v", err)
	}
	for _, bad := range [][]byte{later[:], seed[:keyBytes]} {
		if err := e.Make(key, bad, []int32{int32(key.stride)}); err == nil {
			t.Errorf("a slab was made from a seed of %d bytes, draw %d", len(bad), later[keyBytes])
		}
	}
	plain := bind(e, ir.PlainKind)
	source := conformance.Slabs(e, ir.Type{Kind: ir.PlainKind})[0]
	for _, gap := range []int{0, kernels.Gaps(e.n) + 1, 1<<15 - 1} {
		binary.NativeEndian.PutUint64(source[len(source)-8:], uint64(gapTag|gap<<1))
		wantError(t, fmt.Sprintf("a source with a gap of %d", gap), e.Make(plain, source, []int32{0}), "damaged")
		if err := e.Stream(plain, source); err != nil {
			t.Fatal(err)
		}
		x := bind(e, ir.CipherKind)
		err := e.Exec(&plan.Step{Op: ir.OpHEMulPlain, Scale: ir.ScaleTwo(70)}, []backend.Operand{x, plain}, bind(e, ir.CipherKind))
		wantError(t, fmt.Sprintf("a step with a gap of %d", gap), err, "damaged")
	}
}
