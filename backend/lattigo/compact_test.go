package lattigo

import (
	"fmt"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
)

// Expanding the compact form gives what encoding gives, bit for bit: real and
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
						if err := e.EncodeCompact(&values[i], ty, got[len(got)-1]); err != nil {
							t.Fatal(err)
						}
						if err := e.Expand(b); err != nil {
							t.Fatal(err)
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
		if err := e.Expand(must[*operand](t)(e.bind(ct, conformance.Slabs(e, ct)))); err == nil {
			t.Error("a ciphertext was expanded")
		}
	}
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
				m.centredRow(z, x, fixedMod)
				m.ntt(z, z)
				m.mulScalarRow(z, z, m.r2)
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
		o, err := e.bind(ty, slabs)
		if err != nil {
			b.Fatal(err)
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
				if err := e.EncodeCompact(&d, ty, slabs[len(slabs)-1]); err != nil {
					b.Fatal(err)
				}
			}
		})
		short := slices.Clone(slabs[len(slabs)-1])
		b.Run("expand/"+name, func(b *testing.B) {
			for b.Loop() {
				copy(slabs[len(slabs)-1], short)
				if err := e.Expand(o); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Expanding the compact form of a key gives the key, bit for bit, at its own level
// and cut to lower ones.
func TestCompactKeys(t *testing.T) {
	p, err := ir.NewParams("compact", 7, ir.RingStandard, ir.SecretTernary, []int{52, 45, 45, 45, 58}, []int{49, 53}, 45)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	e := must[*engine](t)(openEngine(p))
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
			at := e.CompactSlabs(ty)
			if s.Rot == ir.KeySparse {
				if at != nil {
					t.Errorf("%s has a compact form", s)
				}
				continue
			}
			want, got := conformance.Slabs(e, ty), conformance.Slabs(e, ty)
			if err := set.Expand(s, want); err != nil {
				t.Fatal(err)
			}
			var few [][]byte
			for _, i := range at {
				few = append(few, got[i])
			}
			if len(few) != len(got)/2+1 {
				t.Errorf("%s: %d of %d slabs", s, len(few), len(got))
			}
			if err := set.Compact(s, few); err != nil {
				t.Fatal(err)
			}
			if err := e.Expand(must[*operand](t)(e.bind(ty, got))); err != nil {
				t.Fatal(err)
			}
			for i := range want {
				if !slices.Equal(got[i], want[i]) {
					t.Fatalf("%s: limb %d of %d differs", s, i, len(want))
				}
			}
		}
	}
	if err := set.Compact(KeySpec{5, 2}, conformance.Slabs(e, ir.Type{Kind: ir.KeyKind, Level: 2})); err == nil {
		t.Error("a compact key was written into the slabs of a whole one")
	}
}
