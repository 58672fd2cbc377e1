package lattigo

import (
	"fmt"
	"testing"

	"github.com/home-fhe/home/backend"
	"github.com/home-fhe/home/backend/conformance"
	"github.com/home-fhe/home/backend/kernels"
	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
)

// TestExecAllocatesNothing runs every op with all kernels that this machine has, alone and
// in halves: once the scratch memory is there, nothing more is allocated.
func TestExecAllocatesNothing(t *testing.T) {
	chosen, err := kernels.Chosen()
	if err != nil {
		t.Fatal(err)
	}
	for _, special := range [][]int{{46}, {46, 46, 46, 46, 46}} {
		p, err := ir.NewParams("allocs", 9, ir.RingStandard, ir.SecretTernary, sizes(47, 44, 9), special, 44)
		if err != nil {
			t.Fatal(err)
		}
		p.Insecure = true
		for form := range chosen + 1 {
			for threads := 1; threads <= 2; threads++ {
				t.Run(fmt.Sprintf("P%d/%s/threads%d", len(special), form, threads), func(t *testing.T) {
					execAllocatesNothing(t, newEngine(must[*rings](t)(newRingsWith(p, form)), threads))
				})
			}
		}
	}
}

func execAllocatesNothing(t *testing.T, e *engine) {
	object := func(k ir.Kind, l int) backend.Operand {
		ty := ir.Type{Kind: k, Encrypted: true, Level: l, Scale: ir.ScaleTwo(44)}
		return must[backend.Operand](t)(e.Bind(ty, conformance.Slabs(e, ty)))
	}
	const l = 7
	for op, kinds := range argKinds {
		if sum, acc := op.Accumulates(); sum { // the longest there is
			terms := kinds[len(kinds)-2:]
			for kinds = nil; len(kinds) < 2*ir.MostTerms; {
				kinds = append(kinds, terms...)
			}
			if acc {
				kinds = append(kinds[:1:1], kinds...)
			}
		}
		var args []backend.Operand
		for _, k := range kinds {
			args = append(args, object(k, l+1))
		}
		want, ok := outKinds[op]
		if !ok {
			want = ir.CipherKind
		}
		out, s := object(want, l), &plan.Step{Op: op, Rot: 3, Const: -0.3, Scale: ir.ScaleTwo(44)}
		if n := testing.AllocsPerRun(10, func() {
			if err := e.Exec(s, args, out); err != nil {
				t.Fatal(err)
			}
		}); n != 0 {
			t.Errorf("%s allocates %v times", op, n)
		}
	}
}
