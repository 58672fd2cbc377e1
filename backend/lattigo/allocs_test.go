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

// TestEngineAllocatesNothing runs every op with all kernels that this machine has, alone
// and in halves, with keys read whole and streamed, and makes plaintexts: once the scratch memory is there, nothing more is
// allocated.
func TestEngineAllocatesNothing(t *testing.T) {
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
					e := newEngine(must[*rings](t)(newRingsWith(p, form)), threads)
					execAllocatesNothing(t, e)
					encodeAllocatesNothing(t, e)
				})
			}
		}
	}
}

// allocatesNothing fails where f allocates or fails.
func allocatesNothing(t *testing.T, what any, f func() error) {
	t.Helper()
	if n := testing.AllocsPerRun(10, func() {
		if err := f(); err != nil {
			t.Fatal(err)
		}
	}); n != 0 {
		t.Errorf("%v allocates %v times", what, n)
	}
}

func execAllocatesNothing(t *testing.T, e *engine) {
	object := func(k ir.Kind, l int) backend.Operand {
		ty := ir.Type{Kind: k, Encrypted: true, Level: l, Scale: ir.ScaleTwo(44)}
		return must[backend.Operand](t)(e.Bind(ty, conformance.Slabs(e, ty)))
	}
	warm(e)
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
		allocatesNothing(t, op, func() error { return e.Exec(s, args, out) })
		if key := len(kinds) - 1; kinds[key] == ir.KeyKind && kernels.VectorSeeds() {
			seed := newSeed()
			allocatesNothing(t, "streaming a key", func() error { return e.Stream(args[key], seed[:]) })
			allocatesNothing(t, op.String()+", key streamed", func() error { return e.Exec(s, args, out) })
		}
	}
}

// warm allocates what scratch spaces allocate when they are first used: which of them
// takes part in a step is not known.
func warm(e *engine) {
	eachScratch(e, func(s *scratch) {
		var seed Seed
		s.key.Set(seed.key(), seed.draw())
		for k := range e.p.Digits(e.p.MaxLevel()) {
			s.key.Row(k, e.mods[0].Q, keyName(e.p, k, 0))
		}
	})
}

// eachScratch calls f with every scratch space while nothing runs.
func eachScratch(e *engine, f func(s *scratch)) {
	var all []*scratch
	for range cap(e.scratch) {
		s := e.take()
		f(s)
		all = append(all, s)
	}
	for _, s := range all {
		e.give(s)
	}
}

// TestJoinedAllocatesNothing runs as many steps together as there may be.
func TestJoinedAllocatesNothing(t *testing.T) {
	p, err := ir.NewParams("allocs", 9, ir.RingStandard, ir.SecretTernary, sizes(47, 44, 9), []int{46, 46, 46}, 44)
	if err != nil {
		t.Fatal(err)
	}
	p.Insecure = true
	for threads := 1; threads <= 2; threads++ {
		e := must[*rings](t)(newRings(p))
		j := joinedTest{t: t, e: newEngine(e, threads)}
		warm(j.e)
		calls, _ := j.random(1, kernels.VectorSeeds())
		eachScratch(j.e, func(s *scratch) { // each has room for as many jobs
			if err := j.e.execLimbs(s, calls); err != nil {
				t.Fatal(err)
			}
		})
		allocatesNothing(t, fmt.Sprintf("%d steps together on %d threads", len(calls), threads), func() error { return j.e.ExecJoined(calls) })
	}
}

func encodeAllocatesNothing(t *testing.T, e *engine) {
	ty := ir.Type{Kind: ir.PlainQPKind, Level: 7, Scale: ir.ScaleTwo(30)}
	slabs, source, some := conformance.Slabs(e, ty), conformance.Slabs(e, ty)[0], []int32{1, 3}
	o := must[backend.Operand](t)(e.Bind(ty, slabs))
	for _, period := range []int{4, e.p.Slots()} {
		v := dense(make([]float64, period))
		v.Value[1] = 0.3
		allocatesNothing(t, "encoding", func() error { return e.Encode(v, o) })
		allocatesNothing(t, "encoding a source", func() error { return e.EncodeCompact(v, ty, source) })
		allocatesNothing(t, "making slabs", func() error { return e.Make(o, source, some) })
	}
	allocatesNothing(t, "binding again", func() error { return e.Rebind(o, ty, slabs) })
}
