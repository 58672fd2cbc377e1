package lattigo

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// Steps that make the limbs of plaintexts as they use them give what they give with the
// limbs, bit for bit: for every operation with plaintexts, one term and the most, terms of
// both kinds side by side, slots that repeat and do not, small and huge scales, one thread
// and two.
func TestStreamedPlaintexts(t *testing.T) {
	for _, logN := range []int{4, 14} {
		p, err := ir.NewParams("stream", logN, ir.RingStandard, ir.SecretTernary, []int{52, 45, 58}, []int{49, 53}, 45)
		if err != nil {
			t.Fatal(err)
		}
		p.Insecure = true
		for _, threads := range []int{1, 2} {
			e := must[backend.Engine](t)(Open(p, AllowInsecure(), Threads(threads))).(*engine)
			rng := rand.New(rand.NewPCG(1, uint64(threads)))
			for _, c := range []struct {
				op     ir.Op
				ct, pt ir.Kind
			}{
				{ir.OpHEMulPlain, ir.CipherKind, ir.PlainKind}, {ir.OpHEMacPlain, ir.CipherKind, ir.PlainKind}, {ir.OpHEAddPlain, ir.CipherKind, ir.PlainKind},
				{ir.OpHEMulQP, ir.CipherQPKind, ir.PlainQPKind}, {ir.OpHEMacQP, ir.CipherQPKind, ir.PlainQPKind},
			} {
				for _, terms := range []int{1, 2, ir.MostTerms} {
					if c.op == ir.OpHEAddPlain && terms > 1 {
						continue
					}
					for _, scale := range []int{40, 100} {
						streamPlaintexts(t, rng, e, c.op, c.ct, c.pt, terms, scale, fmt.Sprintf("N=2^%d, %d threads, %s of %d terms, scale 2^%d", logN, threads, c.op, terms, scale))
					}
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func streamPlaintexts(t *testing.T, rng *rand.Rand, e *engine, op ir.Op, ct, pt ir.Kind, terms, scale int, what string) {
	t.Helper()
	const level = 2
	cipher := func() *operand {
		return randomObject(t, rng, e, ir.Type{Kind: ct, Level: level, Scale: ir.ScaleTwo(40)})
	}
	ty := ir.Type{Kind: pt, Level: level, Scale: ir.ScaleTwo(scale)}
	var whole, streamed []backend.Operand
	both := func(o backend.Operand) { whole, streamed = append(whole, o), append(streamed, o) }
	both(cipher())
	for k := range terms {
		if k > 0 || op == ir.OpHEMacPlain || op == ir.OpHEMacQP {
			both(cipher())
		}
		period := max(1, e.p.Slots()>>(k%5))
		v := ir.SlotData{Period: period}
		for i := range period {
			v.Index, v.Value = append(v.Index, int32(i)), append(v.Value, rng.NormFloat64())
		}
		a := must[*operand](t)(e.bind(ty, conformance.Slabs(e, ty)))
		source := conformance.Slabs(e, ir.Type{Kind: ir.PlainKind})[0]
		if err := e.Encode(&v, a); err != nil {
			t.Fatal(err)
		}
		if err := e.EncodeCompact(&v, ty, source); err != nil {
			t.Fatal(err)
		}
		whole = append(whole, a)
		if k%4 == 3 {
			streamed = append(streamed, a)
			continue
		}
		b := must[*operand](t)(e.bind(ty, make([][]byte, len(a.rows))))
		if err := e.Stream(b, source); err != nil {
			t.Fatal(err)
		}
		streamed = append(streamed, b)
	}
	run := func(args []backend.Operand) *operand {
		ty := ir.Type{Kind: ct, Level: level, Scale: ir.ScaleTwo(40)}
		o := must[*operand](t)(e.bind(ty, conformance.Slabs(e, ty)))
		if err := e.Exec(&plan.Step{Op: op}, args, o); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		return o
	}
	want, got := run(whole), run(streamed)
	for i := range want.rows {
		if !slices.Equal(want.rows[i], got.rows[i]) {
			t.Fatalf("%s: limb %d differs", what, i)
		}
	}
}
