package lattigo

import (
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// randomObject makes an object of random residues.
func randomObject(t *testing.T, rng *rand.Rand, e *engine, ty ir.Type) *operand {
	t.Helper()
	o := must[*operand](t)(e.bind(ty, conformance.Slabs(e, ty)))
	for i, row := range o.rows {
		q := e.mod(i%o.stride, ty.Level).Q
		for k := range row {
			row[k] = rng.Uint64N(q)
		}
	}
	return o
}

// TestThreads runs every step that is split over idle cores on one and on several
// threads, on random residues, with keys whose uniform halves are in memory and with
// keys of which the steps make them: the same bits come out.
func TestThreads(t *testing.T) {
	p, err := ir.NewParams("threads", 9, ir.RingStandard, ir.SecretTernary, sizes(47, 44, 14), []int{46, 46, 46, 46, 46}, 44)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	const top = 12
	run := func(threads int, draw kernels.Draw, streams bool) map[string][][]uint64 {
		opened, err := Open(p, AllowInsecure(), Threads(threads))
		if err != nil {
			t.Fatal(err)
		}
		defer opened.Close()
		e := opened.(*engine)
		rng := rand.New(rand.NewPCG(1, 2))
		object := func(k ir.Kind, level int) *operand {
			return randomObject(t, rng, e, ir.Type{Kind: k, Encrypted: true, Level: level})
		}
		a, b, qp := object(ir.CipherKind, top), object(ir.CipherKind, top), object(ir.CipherQPKind, top)
		digits, key, low, sparse := object(ir.DigitsKind, top-1), object(ir.KeyKind, top+1), object(ir.CipherKind, 0), object(ir.SparseKeyKind, 0)
		seed := Seed{1, 2, 3, keyBytes: byte(draw)}
		for i := range key.rows {
			if i/key.stride%2 == 0 {
				continue
			}
			if streams {
				key.rows[i] = nil
			} else if err := e.Make(key, seed[:], []int32{int32(i)}); err != nil {
				t.Fatal(err)
			}
		}
		if streams {
			if err := e.Stream(key, seed[:]); err != nil {
				t.Fatal(err)
			}
		}
		out := map[string][][]uint64{}
		for _, s := range []struct {
			op   ir.Op
			kind ir.Kind
			to   int
			args []backend.Operand
		}{
			{ir.OpHEMul, ir.CipherKind, top, []backend.Operand{a, b, key}},
			{ir.OpHERescale, ir.CipherKind, top - 1, []backend.Operand{a}},
			{ir.OpHEMulRescale, ir.CipherKind, top - 1, []backend.Operand{a, b, key}},
			{ir.OpHEMacRescale, ir.CipherKind, top - 2, []backend.Operand{b, a, a, key}},
			{ir.OpHEModDownRescale, ir.CipherKind, top - 1, []backend.Operand{qp}},
			{ir.OpHERotate, ir.CipherKind, top, []backend.Operand{a, key}},
			{ir.OpHERealPart, ir.CipherKind, top - 3, []backend.Operand{a, key}},
			{ir.OpHEDecompose, ir.DigitsKind, top, []backend.Operand{a}},
			{ir.OpHEHoistRot, ir.CipherQPKind, top - 2, []backend.Operand{a, digits, key}},
			{ir.OpHEGiant, ir.CipherQPKind, top, []backend.Operand{qp, key}},
			{ir.OpHEModDown, ir.CipherKind, top, []backend.Operand{qp}},
			{ir.OpHERaise, ir.CipherKind, top, []backend.Operand{low, sparse, key}},
		} {
			z := object(s.kind, s.to)
			if err := e.Exec(&plan.Step{Op: s.op, Rot: 3, Const: 0.3}, s.args, z); err != nil {
				t.Fatalf("%s: %v", s.op, err)
			}
			out[s.op.String()] = z.rows
		}
		return out
	}
	for draw := range kernels.Draws {
		want := run(1, draw, false)
		for _, way := range []struct {
			threads int
			streams bool
		}{{3, false}, {1, true}, {2, true}} {
			for op, rows := range run(way.threads, draw, way.streams) {
				if !slices.EqualFunc(rows, want[op], slices.Equal[[]uint64]) {
					t.Errorf("%s: other bits on %d threads, draw %d, streams %v", op, way.threads, draw, way.streams)
				}
			}
		}
	}
}
