package lattigo

import (
	"fmt"
	"math"
	"time"
	"unsafe"

	"github.com/home-fhe/home/ir"
	"github.com/home-fhe/home/ir/plan"
	"github.com/tuneinsight/lattigo/v5/core/rlwe"
	"github.com/tuneinsight/lattigo/v5/ring"
)

// KernelTime compares one step of the engine with stock Lattigo v5, on the same
// parameters, in the same process, one thread.
type KernelTime struct {
	Step  string  // what is computed
	LogN  int     // ring degree
	Form  string  // ring, levels and special primes
	Ours  float64 // milliseconds, best of the runs
	Stock float64 // milliseconds, best of the runs
}

// Ratio returns how many times faster the engine is.
func (k KernelTime) Ratio() float64 { return k.Stock / k.Ours }

// CompareKernels times the engine's kernels against stock Lattigo for the given
// parameters, alternating between the two so that a busy machine harms both
// alike. It uses keys of its own, for timing only, and says nothing of security.
func CompareKernels(p *ir.Params, runs int) ([]KernelTime, error) {
	r, err := newRings(p)
	if err != nil {
		return nil, err
	}
	e := &engine{rings: r, scratch: make(chan *scratch, 1)}
	e.scratch <- nil
	kind := ring.Standard
	if p.Ring == ir.RingReal {
		kind = ring.ConjugateInvariant
	}
	stock, err := rlwe.NewParametersFromLiteral(rlwe.ParametersLiteral{LogN: p.LogN, Q: p.Q, P: p.P, RingType: kind, NTTFlag: true})
	if err != nil {
		return nil, err
	}
	level := p.MaxLevel()
	form := fmt.Sprintf("%s, level %d, %d of P", p.Ring, level, len(p.P))
	var out []KernelTime
	compare := func(step string, ours, theirs func()) {
		k := KernelTime{step, p.LogN, form, math.Inf(1), math.Inf(1)}
		for range max(runs, 1) {
			k.Ours, k.Stock = min(k.Ours, milliseconds(ours)), min(k.Stock, milliseconds(theirs))
		}
		out = append(out, k)
	}

	seed := newSeed()
	fill := func(t ir.Type) (*operand, error) {
		n := e.Slabs(t)
		buf := make([]uint64, n*e.n+8)
		off := int(-uintptr(unsafe.Pointer(&buf[0]))&63) / 8
		slabs := make([][]byte, n)
		for i := range slabs {
			slabs[i] = unsafe.Slice((*byte)(unsafe.Pointer(&buf[off+i*e.n])), e.SlabBytes())
		}
		o, err := e.bind(t, slabs)
		if err != nil {
			return nil, err
		}
		for i, row := range o.rows {
			uniformRow(row, e.mod(i%o.stride, t.Level).q, &seed, elementNoise, int(t.Kind), i)
		}
		return o, nil
	}
	x, err := fill(ir.Type{Kind: ir.CipherKind, Level: level})
	if err != nil {
		return nil, err
	}
	y, err := fill(ir.Type{Kind: ir.CipherKind, Level: level})
	if err != nil {
		return nil, err
	}
	key, err := fill(ir.Type{Kind: ir.KeyKind, Level: level})
	if err != nil {
		return nil, err
	}

	rq, m := stock.RingQ(), r.mods[0]
	s := rq.SubRings[0]
	a, b, c := x.q(0, 0), x.q(1, 0), y.q(0, 0)
	compare("transform", func() { m.ntt(c, a) }, func() { s.NTT(a, c) })
	compare("inverse transform", func() { m.intt(c, a) }, func() { s.INTT(a, c) })
	compare("multiply and accumulate", func() { m.macRow(c, c, a, b) }, func() { s.MulCoeffsMontgomeryThenAdd(a, b, c) })

	poly := func(o *operand, k int) ring.Poly { return ring.Poly{Coeffs: o.rows[k*o.stride : (k+1)*o.stride]} }
	if level > 0 {
		low, err := fill(ir.Type{Kind: ir.CipherKind, Level: level - 1})
		if err != nil {
			return nil, err
		}
		buff := rq.NewPoly()
		compare("rescale", func() {
			w := e.take()
			e.rescale(w, low, x)
			e.give(w)
		}, func() {
			for k := range 2 {
				rq.DivRoundByLastModulusNTT(poly(x, k), buff, poly(low, k))
			}
		})
	}
	kgen := rlwe.NewKeyGenerator(stock)
	galois := stock.GaloisElement(1)
	eval := rlwe.NewEvaluator(stock, rlwe.NewMemEvaluationKeySet(nil, kgen.GenGaloisKeyNew(galois, kgen.GenSecretKeyNew())))
	in, res := rlwe.NewCiphertext(stock, 1, level), rlwe.NewCiphertext(stock, 1, level)
	for k := range 2 {
		in.Value[k].Copy(poly(x, k))
	}
	var failed error
	step := &plan.Step{Op: ir.OpHERotate, Rot: 1}
	compare("rotate", func() {
		if err := e.exec(step, [3]*operand{x, key}, y); err != nil {
			failed = err
		}
	}, func() {
		if err := eval.Automorphism(in, galois, res); err != nil {
			failed = err
		}
	})
	return out, failed
}

// milliseconds times f, repeated until a millisecond has passed, per call.
func milliseconds(f func()) float64 {
	n, start := 0, time.Now()
	for {
		f()
		n++
		if d := time.Since(start); d > time.Millisecond {
			return float64(d.Nanoseconds()) / 1e6 / float64(n)
		}
	}
}
